//! The time slice of a thread. In: a length. Out: the kernel's scheduler knows it.
//!
//! Note: where threads share a core, a thread that wakes up waits until the one that runs has used up its slice, which is looked at every tick:
//! 4 ms with the kernels of most distributions. A start wakes a dozen threads one after the other, so on a busy core such waits add up. Linux
//! 6.12 and later lets a thread with a shorter slice run at once, as long as it has not had more than its share. It needs no privilege, gives no
//! thread more time than before, and older kernels ignore it.
#![allow(unsafe_code, reason = "a system call that no crate offers")]

use std::io;
use std::mem::size_of;
use std::time::Duration;

/// The shortest slice that the kernel takes.
pub const SHORT_SLICE: Duration = Duration::from_micros(100);

/// Gives the calling thread a slice of this length, or with zero the ordinary one. Threads and processes that it starts inherit it.
///
/// # Errors
/// The kernel's, for instance where a seccomp profile forbids it.
pub fn set_time_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    if i64::from(attributes.sched_policy) != i64::from(libc::SCHED_OTHER) {
        // An operator has chosen another policy, in which these fields mean something else.
        return Ok(());
    }
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads the structure, whose first field says its size, and nothing else.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The slice of the calling thread.
#[cfg(test)]
fn time_slice() -> io::Result<Duration> {
    Ok(Duration::from_nanos(attributes()?.sched_runtime))
}

fn attributes() -> io::Result<libc::sched_attr> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?;
    // SAFETY: all fields are integers, and zero is a value of each.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes, which is the size of the structure.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_of_a_thread_is_set_and_given_back() {
        // Tests have a thread each, or run one after the other.
        let ordinary = time_slice().unwrap();
        set_time_slice(SHORT_SLICE).unwrap();
        let short = time_slice().unwrap();
        // Kernels before 6.12 tell zero.
        assert!(short == SHORT_SLICE || short.is_zero(), "{short:?}");
        set_time_slice(Duration::ZERO).unwrap();
        assert_eq!(time_slice().unwrap(), ordinary);
    }
}
