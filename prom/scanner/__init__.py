"""From a mask to a scanner: the order of what is measured, Pulseq sequences, ISMRMRD headers, and a virtual scan that proves them."""
