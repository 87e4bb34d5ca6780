"""Names that ``--help`` lists and that modules importing PyTorch give a meaning to, so that asking for help does not wait for PyTorch."""

RIVALS = ("igs", "loupe", "score_prune")  # the functions of prom.rivals that are baselines
BASELINES = ("energy", "conjugate_energy", "low_pass", "equispaced", "gaussian", "poisson_disc", *RIVALS)
CONVENTIONS = ("paper", "fastmri")  # of scores: see prom.metrics
FORMATS = (".npy", ".h5", ".mat", ".cfl", ".csv", ".png")  # of exported masks: see prom.export
