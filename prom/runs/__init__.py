"""Many runs: records with all that is needed to repeat them, sweeps, and the check that code still makes the same masks."""
