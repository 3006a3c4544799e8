//! What a process does once, before it trains.

/// Makes steps cheaper: memory is kept, and the main thread is one of the workers, so that it need not be woken after every
/// operation. Where a pool of threads stands already it stays as it is.
pub fn settle() {
    keep_memory();
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}

/// Keeps what is freed for the next step: every step frees and takes the same large tensors, and pages fresh from the system cost
/// 10 to 15 % of it.
#[allow(unsafe_code)]
fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` only sets thresholds of the allocator.
    unsafe {
        // Older versions of glibc take no more than 32 MiB. A threshold that is not taken must stay the moving one that it is
        // by default, which the other settings would end.
        if libc::mallopt(libc::M_MMAP_THRESHOLD, i32::MAX) == 1 || libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20) == 1
        {
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
            libc::mallopt(libc::M_TOP_PAD, 64 << 20);
        }
    }
}
