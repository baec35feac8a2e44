//! What runs inside a guest: init, initramfs, guest kernels.
