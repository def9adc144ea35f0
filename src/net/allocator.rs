//! How the allocator of glibc deals with memory that was freed.
//!
//! As it comes, it gives the free end of its memory back to the system when that has become long enough, and then all
//! of it at a stroke, within the call of `free` that made it so long: 50 MiB took 8 ms. If one small thing lies behind
//! a gigabyte of freed keys, it would be a quarter of a second for whoever frees that. A node has one thread for
//! everything that somebody waits for, so memory that was used once stays with it, for the next keys.
#![expect(unsafe_code, reason = "the only way to tell the allocator; nothing else here is unsafe")]

/// Larger pieces are asked of the system one by one, and given back when they are freed. The most that glibc takes.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: i32 = 32 << 20;
/// As the length from which on memory is given back: none.
#[cfg(target_env = "gnu")]
const NEVER: i32 = -1;

/// Lets the allocator keep what is freed. Says whether that is how it is now: other allocators than glibc's are left as
/// they are.
pub(super) fn keep_freed_memory() -> bool {
    #[cfg(target_env = "gnu")]
    {
        let wanted = [(libc::M_TRIM_THRESHOLD, NEVER), (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD)];
        // SAFETY: `mallopt` takes two numbers and no pointers, may be called at any time and from any thread, and
        // changes nothing but when the allocator asks the system for memory and gives it back.
        wanted.iter().all(|(parameter, value)| unsafe { libc::mallopt(*parameter, *value) } == 1)
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

#[cfg(test)]
mod tests {
    #[test]
    fn glibc_takes_it() {
        assert_eq!(super::keep_freed_memory(), cfg!(target_env = "gnu"));
    }
}
