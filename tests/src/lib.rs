//! End-to-end tests: the real binaries on real kernels and images.
