//! Jobs in order of submission, except for those of a mount that has its share of threads.

use super::Job;
use crate::sys::mount::MountId;
use std::collections::VecDeque;

/// Jobs, and the number of busy threads for each mount.
#[derive(Default)]
pub(super) struct FairQueue {
    /// The mounts with jobs or threads; all unknown mounts are one. They are served in rotation,
    /// from the front.
    mounts: VecDeque<Mount>,
}

struct Mount {
    id: Option<MountId>,
    running: usize,
    jobs: VecDeque<Job>,
}

impl FairQueue {
    pub(super) fn push_back(&mut self, job: Job) {
        self.mount(job.mount).jobs.push_back(job);
    }

    pub(super) fn push_front(&mut self, job: Job) {
        self.mount(job.mount).jobs.push_front(job);
    }

    /// Pops a job of the next mount with fewer than `share` busy threads. Its thread must call
    /// [`finish`](FairQueue::finish) afterwards.
    pub(super) fn pop_front(&mut self, share: usize) -> Option<Job> {
        let at = self.mounts.iter().position(|mount| mount.runnable(share) > 0)?;
        let mut mount = self.mounts.remove(at)?;
        let job = mount.jobs.pop_front();
        mount.running += 1;
        self.mounts.push_back(mount);
        job
    }

    /// Notes that a thread has finished a job of this mount.
    pub(super) fn finish(&mut self, id: Option<MountId>) {
        self.mount(id).running -= 1;
        self.remove_empty();
    }

    /// Removes the first matching job.
    pub(super) fn remove(&mut self, matches: impl Fn(&Job) -> bool) -> Option<Job> {
        let mut jobs = self.mounts.iter_mut().map(|mount| &mut mount.jobs);
        let job = jobs.find_map(|jobs| jobs.remove(jobs.iter().position(&matches)?));
        self.remove_empty();
        job
    }

    /// Returns the number of jobs that further threads could take.
    pub(super) fn runnable(&self, share: usize) -> usize {
        self.mounts.iter().map(|mount| mount.runnable(share)).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mounts.iter().all(|mount| mount.jobs.is_empty())
    }

    /// Takes all jobs.
    pub(super) fn take(&mut self) -> Vec<Job> {
        self.mounts.iter_mut().flat_map(|mount| mount.jobs.drain(..)).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.mounts.iter().map(|mount| mount.jobs.len()).sum()
    }

    #[cfg(test)]
    pub(super) fn ops(&self) -> Vec<crate::key::OpSlot> {
        self.mounts.iter().flat_map(|mount| mount.jobs.iter().map(|job| job.op)).collect()
    }

    fn mount(&mut self, id: Option<MountId>) -> &mut Mount {
        let at = self.mounts.iter().position(|mount| mount.id == id).unwrap_or_else(|| {
            self.mounts.push_back(Mount { id, running: 0, jobs: VecDeque::new() });
            self.mounts.len() - 1
        });
        &mut self.mounts[at]
    }

    fn remove_empty(&mut self) {
        self.mounts.retain(|mount| mount.running > 0 || !mount.jobs.is_empty());
    }
}

impl Mount {
    fn runnable(&self, share: usize) -> usize {
        self.jobs.len().min(share.saturating_sub(self.running))
    }
}
