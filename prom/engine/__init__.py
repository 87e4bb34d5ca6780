"""What makes it fast, on the machine at hand: compiled passes, threads, graphs of a GPU, processes. No mathematics of its own."""
