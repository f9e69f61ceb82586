//! The times at which the pods of workers came up, as the Kubernetes API told them. In: news of pods. Out: the times of one pod, for the phases of a
//! cold start. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

/// Pods at most; beyond it the times of all are forgotten. They matter for seconds, and a cluster that makes so many in one watch has others.
const MOST_PODS: usize = 1000;

/// An event of the Kubernetes API.
#[cfg_attr(
    not(any(test, feature = "kubernetes")),
    expect(dead_code, reason = "the Kubernetes API alone tells of pods")
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodNews {
    /// The Deployment of the workers was scaled up.
    Scaled,
    /// A pod of this name was created.
    Created(String),
    /// The pod of this name has a node.
    Scheduled(String),
}

/// The times of one pod, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodTimes {
    /// Its Deployment was scaled up.
    pub(crate) scaled: Option<Instant>,
    /// The pod was created.
    pub(crate) created: Option<Instant>,
    /// The pod was given a node.
    pub(crate) scheduled: Option<Instant>,
}

/// The times of all pods.
#[derive(Debug, Default)]
pub(super) struct PodBook {
    scaled: Option<Instant>,
    pods: BTreeMap<String, PodTimes>,
}

impl PodBook {
    /// Notes an event that was heard of just now.
    pub(super) fn note(&mut self, now: Instant, news: PodNews) {
        if self.pods.len() >= MOST_PODS {
            self.pods.clear();
        }
        match news {
            PodNews::Scaled => self.scaled = Some(now),
            PodNews::Created(name) => {
                let pod = self.pods.entry(name).or_default();
                (pod.scaled, pod.created) = (self.scaled, Some(now));
            }
            PodNews::Scheduled(name) => {
                self.pods.entry(name).or_default().scheduled.get_or_insert(now);
            }
        }
    }

    /// The times of a pod. A worker is named like its pod.
    pub(super) fn times(&self, name: &str) -> PodTimes {
        self.pods.get(name).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use liveedgecast_common::testkit::origin;

    use super::*;

    #[test]
    fn a_pod_belongs_to_the_newest_scale_and_pods_are_bounded() {
        let origin = origin();
        let at = |milliseconds| origin + Duration::from_millis(milliseconds);
        let mut book = PodBook::default();
        book.note(at(1), PodNews::Scaled);
        book.note(at(2), PodNews::Created("w-1".into()));
        book.note(at(5), PodNews::Scheduled("w-1".into()));
        book.note(at(9), PodNews::Scheduled("w-1".into()));
        book.note(at(9), PodNews::Scheduled("w-0".into()));
        let whole = PodTimes { scaled: Some(at(1)), created: Some(at(2)), scheduled: Some(at(5)) };
        assert_eq!(book.times("w-1"), whole);
        let late = PodTimes { scheduled: Some(at(9)), ..PodTimes::default() };
        assert_eq!((book.times("w-0"), book.times("none")), (late, PodTimes::default()));
        for number in 0..3 * MOST_PODS {
            book.note(at(10), PodNews::Created(number.to_string()));
        }
        assert!(book.pods.len() <= MOST_PODS);
    }
}
