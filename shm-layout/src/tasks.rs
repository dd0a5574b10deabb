//! The array of task words: one word a unit of blocks, or one a stripe.
//!
//! A task array is its own lock table: the word of a stripe says who holds it, so the stripes of the hash need no mutexes beside them
//! (Postgres's dshash has an LWLock a partition, because there an owner's death need not be survived).
//!
//! An array may have *bundles*, an array of task words beside it: an owner takes tasks into a bundle one by one and commits them all with one word, see
//! [`crate::words`]. Whatever is asked of a task here is answered as its bundle has it.

use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::sync::{AtomicU64, Ordering};
use crate::takeover::SoleUser;
use crate::toc::Area;
use crate::words::{self, BadWord, Claim, Owner, Task};
use std::collections::BTreeSet;
use std::sync::Arc;

/// This process's view of an array of task words.
#[derive(Clone)]
pub struct TaskWords {
    segment: Arc<Segment>,
    at: usize,
    len: usize,
    /// The bundles that its tasks may be in.
    bundles: Option<Arc<TaskWords>>,
}

/// A bundle that was claimed: a number that no other ever has, and what its commit must find.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is in a bundle stays claimed until it is committed or abandoned"]
pub struct Bundle {
    number: u32,
    claim: Claim,
}

impl TaskWords {
    /// Bytes for `tasks` words.
    pub const fn estimate(tasks: usize) -> usize {
        tasks * 8
    }

    /// Makes `tasks` free words in `area`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when the area is too small.
    pub fn create_in(segment: &Arc<Segment>, area: Area, tasks: usize) -> Result<Self> {
        let words = Self::attach(segment, area)?;
        if words.len < tasks {
            let (len, limit) = (Self::estimate(tasks) as u64, (area.offset + area.len) as u64);
            return Err(Error::OutOfBounds {
                name: segment.name().into(),
                offset: area.offset as u64,
                len,
                limit,
            });
        }
        for i in 0..words.len {
            words.word(i)?.store(Task::Free { attempts: 0 }.pack(), Ordering::Relaxed);
        }
        Ok(words)
    }

    /// Uses the words in `area`, as many as fill it.
    ///
    /// # Errors
    /// None; the area was checked by the table of contents.
    pub fn attach(segment: &Arc<Segment>, area: Area) -> Result<Self> {
        Ok(Self { segment: Arc::clone(segment), at: area.offset, len: area.len / 8, bundles: None })
    }

    /// The same tasks, which may be in `bundles`.
    #[must_use]
    pub fn with_bundles(self, bundles: Self) -> Self {
        Self { bundles: Some(Arc::new(bundles)), ..self }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none: an empty relation has no units.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn word(&self, task: usize) -> Result<&AtomicU64> {
        if task >= self.len {
            let (offset, limit) = ((self.at + task * 8) as u64, (self.at + self.len * 8) as u64);
            return Err(Error::OutOfBounds { name: self.segment.name().into(), offset, len: 8, limit });
        }
        self.segment.map().word(self.at + task * 8)
    }

    fn bad(&self, source: BadWord) -> Error {
        Error::Word { name: self.segment.name().into(), source }
    }

    /// What the word of `task` says, and how the task stands: another thing if it is in a bundle. Both stay true of a bundle that has ended.
    fn see(&self, task: usize) -> Result<(Task, Task)> {
        let seen = words::look(self.word(task)?).map_err(|e| self.bad(e))?;
        let Task::Bundled { bundle, .. } = seen else { return Ok((seen, seen)) };
        let bundles = self.bundles.as_ref();
        let stands = match bundles.map(|bundles| bundles.look(bundle as usize)).transpose()? {
            Some(bundle) => seen.in_bundle(bundle),
            None => None,
        };
        Ok((seen, stands.ok_or_else(|| self.bad(BadWord { kind: "task", bits: seen.pack() }))?))
    }

    /// How `task` stands; [`Task::Bundled`] if it is done with a bundle. Acquire: what a DONE word reaches is visible.
    ///
    /// # Errors
    /// [`Error::Word`] when its word is damaged, or that of its bundle.
    pub fn look(&self, task: usize) -> Result<Task> {
        Ok(self.see(task)?.1)
    }

    /// Claims `task` if it is free.
    ///
    /// # Errors
    /// [`Error::Word`] when its word is damaged.
    pub fn claim(&self, task: usize, owner: Owner) -> Result<Option<Claim>> {
        let (seen, Task::Free { attempts }) = self.see(task)? else { return Ok(None) };
        Ok(words::claim_seen(self.word(task)?, seen, owner, attempts))
    }

    /// The first task that `claim` claims.
    ///
    /// # Errors
    /// What `claim` returns.
    pub fn first<T>(&self, claim: impl Fn(usize) -> Result<Option<T>>) -> Result<Option<(usize, T)>> {
        for task in 0..self.len {
            if let Some(claimed) = claim(task)? {
                return Ok(Some((task, claimed)));
            }
        }
        Ok(None)
    }

    /// Claims a bundle, in which nothing is yet. `None` when all have been used: then tasks are claimed one by one.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn begin_bundle(&self, owner: Owner) -> Result<Option<Bundle>> {
        let Some(bundles) = &self.bundles else { return Ok(None) };
        let found = bundles.first(|bundle| bundles.claim(bundle, owner))?;
        Ok(found.map(|(number, claim)| Bundle { number: number as u32, claim }))
    }

    /// Takes `task` into a bundle if it is free, and so few died on it that it need not be alone, see [`words::may_be_bundled`]. Says whether it did.
    ///
    /// # Errors
    /// [`Error::Word`] when its word is damaged.
    pub fn bundle(&self, task: usize, bundle: &Bundle, max_attempts: u8) -> Result<bool> {
        let (seen, Task::Free { attempts }) = self.see(task)? else { return Ok(false) };
        Ok(words::may_be_bundled(attempts, max_attempts)
            && words::bundle_seen(self.word(task)?, seen, bundle.number, attempts))
    }

    /// Publishes the result of a bundle, and with it of every task in it.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the claim was taken away.
    pub fn commit_bundle(&self, bundle: &Bundle, owner: Owner, head: u32) -> Result<()> {
        match &self.bundles {
            Some(bundles) => bundles.commit(bundle.number as usize, bundle.claim, owner, head),
            None => Ok(()),
        }
    }

    /// Gives up a bundle: what is in it is free again, and no attempt is counted.
    ///
    /// # Errors
    /// None for a bundle that exists.
    pub fn abandon(&self, bundle: &Bundle) -> Result<()> {
        if let Some(bundles) = &self.bundles {
            words::abandon(bundles.word(bundle.number as usize)?, bundle.claim);
        }
        Ok(())
    }

    /// The number by which the result of a bundle is known, see [`TaskWords::results`].
    pub fn result_of(&self, bundle: &Bundle) -> usize {
        self.len + bundle.number as usize
    }

    /// Every result that there is, with its number and the head of its chain: a task's own has the task's, that of a bundle one behind all tasks'.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn results(&self) -> Result<Vec<(usize, u32)>> {
        let mut results = Vec::new();
        for task in 0..self.len {
            if let Task::Done { head, .. } = self.look(task)? {
                results.push((task, head));
            }
        }
        if let Some(bundles) = &self.bundles {
            results.extend(bundles.results()?.into_iter().map(|(bundle, head)| (self.len + bundle, head)));
        }
        Ok(results)
    }

    /// True when a task before `task` is free.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn has_free_before(&self, task: usize) -> Result<bool> {
        for earlier in 0..task.min(self.len) {
            if matches!(self.look(earlier)?, Task::Free { .. }) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Publishes the result of a claimed task, whose chain of chunks starts at `head`.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the claim was taken away.
    pub fn commit(&self, task: usize, claim: Claim, owner: Owner, head: u32) -> Result<()> {
        let fenced = |_| Error::Fenced { slot: owner.slot, generation: owner.generation };
        words::commit(self.word(task)?, claim, head).map_err(fenced)
    }

    /// Makes a done task lead nowhere: what its chain held is used up. False when it led elsewhere already. Whoever calls it owns the chain's
    /// chunks, and frees them after it (I5).
    ///
    /// # Errors
    /// [`Error::Word`] when its word is damaged.
    pub fn consume(&self, task: usize, head: u32) -> Result<bool> {
        words::consume(self.word(task)?, head).map_err(|e| self.bad(e))
    }

    /// Gives a claim back unfinished.
    ///
    /// # Errors
    /// None for a task that exists.
    pub fn give_back(&self, task: usize, claim: Claim) -> Result<()> {
        words::give_back(self.word(task)?, claim);
        Ok(())
    }

    /// Takes every task away from `dead`; says which ones and what they became. May be done again by anybody (I5).
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn recover(&self, dead: Owner, max_attempts: u8) -> Result<Vec<(usize, Task)>> {
        let mut changed = Vec::new();
        for task in 0..self.len {
            let now = words::recover(self.word(task)?, dead, max_attempts).map_err(|e| self.bad(e))?;
            changed.extend(now.map(|now| (task, now)));
        }
        // One word for all that was in it: none is used again, so one death is the end of it.
        if let Some(bundles) = &self.bundles {
            bundles.recover(dead, 1)?;
        }
        Ok(changed)
    }

    /// Takes every task away from `dead` without counting an attempt: its leader died, and it with it.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn take_back(&self, dead: Owner) -> Result<()> {
        for task in 0..self.len {
            words::take_back(self.word(task)?, dead).map_err(|e| self.bad(e))?;
        }
        let Some(bundles) = &self.bundles else { return Ok(()) };
        for bundle in 0..bundles.len {
            words::abandon_of(bundles.word(bundle)?, dead).map_err(|e| self.bad(e))?;
        }
        Ok(())
    }

    /// Frees every task that was given up, for a leader that takes over and tries again.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn pardon(&self, _proof: &SoleUser) -> Result<()> {
        for task in 0..self.len {
            if let Task::Poison { .. } = self.look(task)? {
                self.word(task)?.store(Task::Free { attempts: 0 }.pack(), Ordering::Release);
            }
        }
        Ok(())
    }

    /// Everybody who has a task, once each, for a leader that takes over.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn owners(&self) -> Result<BTreeSet<Owner>> {
        let mut owners = BTreeSet::new();
        for task in 0..self.len {
            if let Task::Claimed { owner, .. } = self.look(task)? {
                owners.insert(owner);
            }
        }
        if let Some(bundles) = &self.bundles {
            owners.extend(bundles.owners()?);
        }
        Ok(owners)
    }

    /// True when every task is done or given up. This, not a counter, is what ends a phase.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn all_settled(&self) -> Result<bool> {
        for task in 0..self.len {
            if !self.look(task)?.is_settled() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many are settled, for progress.
    ///
    /// # Errors
    /// [`Error::Word`] when a word is damaged.
    pub fn settled(&self) -> Result<usize> {
        (0..self.len).try_fold(0, |n, task| Ok(n + usize::from(self.look(task)?.is_settled())))
    }
}
