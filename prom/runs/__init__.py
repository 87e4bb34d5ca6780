"""Many runs: records that say all that is needed to repeat them, sweeps, and the check that code still makes the same masks."""
