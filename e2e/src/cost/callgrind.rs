//! Reads what callgrind writes. In: a file of callgrind. Out: instructions and calls of each function.
//!
//! ```text
//! fn=(12) liveedgecast_worker::stream::…     the function that the lines below belong to; a name comes once, its number from then on
//! 410 28                                     28 instructions of line 410
//! cfn=(7) malloc
//! calls=4 0                                  four calls of malloc …
//! 411 900                                    … with 900 instructions in it and all that it calls
//! ```

use std::collections::HashMap;

/// Functions that allocate: malloc and its kind. In a program that is linked statically they have the library's inner names as well, of which
/// valgrind takes one.
const ALLOCATE: [&str; 11] = [
    "malloc",
    "calloc",
    "realloc",
    "aligned_alloc",
    "memalign",
    "posix_memalign",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
    "__posix_memalign",
];

/// Counts of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionCount {
    /// Instructions in the function itself.
    pub own: u64,
    /// Calls of the function.
    pub calls: u64,
}

/// Counts of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    functions: HashMap<String, FunctionCount>,
}

impl Profile {
    /// Reads a file of callgrind. A line of another kind is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut names: HashMap<&str, &str> = HashMap::new();
        let mut counts: HashMap<&str, FunctionCount> = HashMap::new();
        let (mut current, mut called, mut inclusive) = ("", "", false);
        for line in text.lines() {
            if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
                let (number, name) = function.split_once(' ').unwrap_or((function, ""));
                if !name.is_empty() {
                    names.insert(number, name);
                }
                *(if line.starts_with('c') { &mut called } else { &mut current }) = number;
            } else if let Some(calls) = line.strip_prefix("calls=") {
                counts.entry(called).or_default().calls += first(calls);
                inclusive = true;
            } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
                // The cost of a call is also in the functions called.
                if !std::mem::take(&mut inclusive) {
                    counts.entry(current).or_default().own += last(line);
                }
            }
        }
        let mut functions: HashMap<String, FunctionCount> = HashMap::new();
        for (number, count) in counts {
            let all = functions.entry(names.get(number).copied().unwrap_or(number).to_owned()).or_default();
            all.own += count.own;
            all.calls += count.calls;
        }
        Self { functions }
    }

    /// All instructions.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        self.functions.values().map(|count| count.own).sum()
    }

    /// Calls of functions that allocate.
    #[must_use]
    pub fn allocations(&self) -> u64 {
        ALLOCATE.iter().filter_map(|name| self.functions.get(*name)).map(|count| count.calls).sum()
    }

    /// Functions, those with most instructions of their own first.
    #[must_use]
    pub fn functions(&self) -> Vec<(&str, FunctionCount)> {
        let mut all: Vec<_> = self.functions.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        all.sort_unstable_by_key(|(name, count)| (std::cmp::Reverse(count.own), *name));
        all
    }
}

fn first(words: &str) -> u64 {
    words.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn last(words: &str) -> u64 {
    words.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_counted_in_the_function_that_has_them() {
        let text = "# callgrind format\nversion: 1\nevents: Ir\n\nob=(1) /x/worker\nfl=(2) poll.rs\nfn=(12) poll<a, b>\n410 28\n\
            cob=(3) libc.so\ncfi=(4) malloc.c\ncfn=(7) malloc\ncalls=4 100\n411 900\n+1 2\n* 3\n\nfn=(7)\n100 900\n\
            cfn=(12)\ncalls=1 0\n0 5\n\nfn=(13) poll<a, b>\n1 7\n\ntotals: 940\n";
        let profile = Profile::parse(text);
        assert_eq!((profile.instructions(), profile.allocations()), (940, 4));
        let rows =
            [("malloc", FunctionCount { own: 900, calls: 4 }), ("poll<a, b>", FunctionCount { own: 40, calls: 1 })];
        assert_eq!(profile.functions(), rows);
    }
}
