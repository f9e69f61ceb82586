//! Reads what strace writes. In: lines of `strace -f -o`. Out: the number of system calls, by name.
//!
//! ```text
//! 4711 recvfrom(12, ""..., 65536, 0, NULL, NULL) = 9064
//! 4711 epoll_wait(3,  <unfinished ...>
//! 4712 <... futex resumed>) = 0              the end of a call that another line has begun
//! 4711 --- SIGCHLD {si_signo=SIGCHLD, …} ---
//! ```

use std::collections::BTreeMap;

/// Number of calls by name.
pub type Calls = BTreeMap<String, u64>;

/// Counts the calls that these lines begin.
#[must_use]
pub fn parse(lines: &str) -> Calls {
    let mut calls = Calls::new();
    for line in lines.lines() {
        let Some((_, rest)) = line.split_once(' ') else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_interrupted_by_another_thread_counts_once() {
        let lines = r#"7 recvfrom(12, ""..., 65536, 0, NULL, NULL) = 9064
7 epoll_wait(3,  <unfinished ...>
8     <... futex resumed>) = 0
7 <... epoll_wait resumed>[{events=EPOLLIN}], 1024, 1) = 1
8 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED} ---
8 +++ exited with 0 +++
8 futex(0x1, FUTEX_WAIT) = 0
"#;
        let wanted = ["recvfrom", "epoll_wait", "futex"].map(|name| (name.to_owned(), 1));
        assert_eq!(parse(lines), Calls::from(wanted));
    }
}
