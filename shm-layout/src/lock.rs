//! A mutex in shared memory whose owner may die: process-shared, robust, and owner death is a value, not an error.
//!
//! Counterpart of Postgres's `LWLock`, which needs no such thing because there the death of one process restarts all of them.
//!
//! Promises: [`RobustMutex::acquire`] returns the lock in every case but a broken mutex; when the last owner died with it, the
//! guard comes as [`Acquired::OwnerDied`], already made consistent, and the caller repairs what the lock guards before it goes on.
//! The mutex lies at a fixed place and is never freed or moved (I10); a process holds at most two (the kernel walks at most 2048
//! robust mutexes of a dead thread).
//!
//! It stands behind the [`LockInit`] and [`LockImpl`] traits of `raw_sync`, so a structure written for those can use it; nothing
//! else of that crate is used, since its own mutex is not robust, and its event is a condition variable (which loses a wake-up when a
//! waiter is killed). Source of the semantics: pthread_mutexattr_setrobust(3).

use crate::error::{Error, Result};
use raw_sync::Timeout;
use raw_sync::locks::{LockGuard, LockImpl, LockInit};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, align_of, size_of};
use std::ptr::NonNull;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the traits of `raw_sync` return; its own alias is private.
type TraitResult<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bytes that the mutex takes in the segment: one cache line, so that nothing else is moved about with it.
pub const MUTEX_BYTES: usize = 64;
const _: () = assert!(size_of::<libc::pthread_mutex_t>() <= MUTEX_BYTES);
const _: () = assert!(align_of::<libc::pthread_mutex_t>() <= 8);

/// A robust mutex that lies in shared memory, seen from this process.
pub struct RobustMutex {
    mutex: NonNull<libc::pthread_mutex_t>,
    data: UnsafeCell<*mut u8>,
}

// SAFETY: a process-shared mutex may be used from every thread; `data` is only handed on, never followed here.
unsafe impl Send for RobustMutex {}
// SAFETY: as above.
unsafe impl Sync for RobustMutex {}

/// The lock, and what became of its last owner.
#[must_use]
pub enum Acquired<'a> {
    /// The last owner released it.
    Clean(Guard<'a>),
    /// The last owner died holding it: what it guards may be half done, and the holder repairs it.
    OwnerDied(Guard<'a>),
}

/// Holds the mutex until dropped. Not `Send`: a robust mutex is released by the thread that took it.
pub struct Guard<'a> {
    lock: &'a RobustMutex,
    _not_send: PhantomData<*const ()>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.lock.unlock();
    }
}

fn check(action: &'static str, code: i32) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(Error::Lock { action, source: std::io::Error::from_raw_os_error(code) })
    }
}

impl RobustMutex {
    /// Makes a new mutex at `at`.
    ///
    /// # Safety
    /// `at` is aligned to 8 and has [`MUTEX_BYTES`] that live as long as the mutex, and nobody uses them yet.
    pub(crate) unsafe fn create_in(at: NonNull<u8>, data: *mut u8) -> Result<Self> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let a = attributes.as_mut_ptr();
        // SAFETY: `a` points to room for the attributes.
        check("pthread_mutexattr_init", unsafe { libc::pthread_mutexattr_init(a) })?;
        // SAFETY: `a` was initialised.
        let shared = unsafe { libc::pthread_mutexattr_setpshared(a, libc::PTHREAD_PROCESS_SHARED) };
        check("pthread_mutexattr_setpshared", shared)?;
        // SAFETY: `a` was initialised.
        let robust = unsafe { libc::pthread_mutexattr_setrobust(a, libc::PTHREAD_MUTEX_ROBUST) };
        check("pthread_mutexattr_setrobust", robust)?;
        let mutex = at.cast::<libc::pthread_mutex_t>();
        // SAFETY: the caller gives exclusive, aligned room for the mutex.
        check("pthread_mutex_init", unsafe { libc::pthread_mutex_init(mutex.as_ptr(), a) })?;
        Ok(Self { mutex, data: UnsafeCell::new(data) })
    }

    /// Uses a mutex that is already at `at`.
    ///
    /// # Safety
    /// `at` is aligned to 8 and holds a mutex made by [`RobustMutex::create_in`], mapped as long as the result lives.
    pub(crate) unsafe fn attach(at: NonNull<u8>, data: *mut u8) -> Self {
        Self { mutex: at.cast(), data: UnsafeCell::new(data) }
    }

    /// Makes the mutex anew, for a leader that takes over a segment after the death of all who used it.
    ///
    /// # Safety
    /// No process and no thread uses the mutex.
    pub(crate) unsafe fn renew(&self) -> Result<()> {
        // SAFETY: the place was good for a mutex, and the caller promises that nobody uses it.
        unsafe { Self::create_in(self.mutex.cast(), std::ptr::null_mut()) }.map(drop)
    }

    /// What the C library keeps in the word that says of which kind a mutex is; it comes behind lock, count, owner and users.
    pub(crate) const KIND_OFFSET: usize = 16;

    /// That word in a mutex as this module makes them: attaching compares, since the C library trusts it.
    ///
    /// # Errors
    /// As [`RobustMutex::create_in`].
    pub(crate) fn kind() -> Result<u32> {
        let mut room = [0u64; MUTEX_BYTES / 8];
        // SAFETY: `room` is aligned, large enough, used by nobody else, and outlives the mutex, which is dropped here.
        unsafe { Self::create_in(NonNull::from(&mut room[..]).cast(), std::ptr::null_mut()) }?;
        Ok(room[Self::KIND_OFFSET / 8] as u32)
    }

    /// Takes the mutex, waiting as long as it takes. The death of its owner ends the wait.
    ///
    /// # Errors
    /// [`Error::Lock`] when the mutex cannot be used any more (an owner died and nobody repaired it, or it is damaged).
    pub fn acquire(&self) -> Result<Acquired<'_>> {
        // SAFETY: the mutex was initialised and is mapped (see `create_in`, `attach`).
        let code = unsafe { libc::pthread_mutex_lock(self.mutex.as_ptr()) };
        self.acquired(code)
    }

    /// Takes the mutex if that is possible at once; `None` when somebody has it.
    ///
    /// # Errors
    /// As [`RobustMutex::acquire`].
    pub fn try_acquire(&self) -> Result<Option<Acquired<'_>>> {
        // SAFETY: the mutex was initialised and is mapped (see `create_in`, `attach`).
        let code = unsafe { libc::pthread_mutex_trylock(self.mutex.as_ptr()) };
        if code == libc::EBUSY { Ok(None) } else { self.acquired(code).map(Some) }
    }

    /// Takes the mutex within `limit`; `None` when somebody held it all the time: its owner may be stopped, which is no death.
    ///
    /// # Errors
    /// As [`RobustMutex::acquire`].
    pub fn acquire_within(&self, limit: Duration) -> Result<Option<Acquired<'_>>> {
        if let Some(acquired) = self.try_acquire()? {
            return Ok(Some(acquired));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = now.saturating_add(limit);
        let end = libc::timespec { tv_sec: end.as_secs() as _, tv_nsec: end.subsec_nanos() as _ };
        // SAFETY: the mutex was initialised and is mapped (see `create_in`, `attach`); `end` lives through the call.
        let code = unsafe { libc::pthread_mutex_timedlock(self.mutex.as_ptr(), &raw const end) };
        if code == libc::ETIMEDOUT { Ok(None) } else { self.acquired(code).map(Some) }
    }

    fn acquired(&self, code: i32) -> Result<Acquired<'_>> {
        let guard = || Guard { lock: self, _not_send: PhantomData };
        if code != libc::EOWNERDEAD {
            check("lock", code)?;
            return Ok(Acquired::Clean(guard()));
        }
        // SAFETY: this thread holds the mutex: EOWNERDEAD says so.
        let code = unsafe { libc::pthread_mutex_consistent(self.mutex.as_ptr()) };
        check("make consistent after its owner died", code)?;
        Ok(Acquired::OwnerDied(guard()))
    }

    fn unlock(&self) {
        // SAFETY: only a guard calls this, and a guard exists only while this thread holds the mutex.
        let code = unsafe { libc::pthread_mutex_unlock(self.mutex.as_ptr()) };
        debug_assert_eq!(code, 0, "unlock by the owner cannot fail");
    }
}

impl LockInit for RobustMutex {
    fn size_of(_: Option<*mut u8>) -> usize {
        MUTEX_BYTES
    }

    unsafe fn new(mem: *mut u8, data: *mut u8) -> TraitResult<(Box<dyn LockImpl>, usize)> {
        let at = NonNull::new(mem).ok_or("expected memory for a mutex, found a null pointer")?;
        // SAFETY: the caller of the trait's method promises what `create_in` asks for.
        let lock = unsafe { Self::create_in(at, data) }?;
        Ok((Box::new(lock), MUTEX_BYTES))
    }

    unsafe fn from_existing(mem: *mut u8, data: *mut u8) -> TraitResult<(Box<dyn LockImpl>, usize)> {
        let at = NonNull::new(mem).ok_or("expected a mutex, found a null pointer")?;
        // SAFETY: the caller of the trait's method promises what `attach` asks for.
        let lock = unsafe { Self::attach(at, data) };
        Ok((Box::new(lock), MUTEX_BYTES))
    }
}

/// `raw_sync`'s view of the mutex. It has no place for owner death as a value, so a death is an error there, given *after* the
/// mutex was made consistent and released; the caller repairs and locks again.
impl LockImpl for RobustMutex {
    fn as_raw(&self) -> *mut c_void {
        self.mutex.as_ptr().cast()
    }

    fn lock(&self) -> TraitResult<LockGuard<'_>> {
        match self.acquire()? {
            Acquired::Clean(guard) => Ok(trait_guard(guard)),
            Acquired::OwnerDied(_released) => Err("the owner of the mutex died while holding it".into()),
        }
    }

    fn try_lock(&self, timeout: Timeout) -> TraitResult<LockGuard<'_>> {
        let end = match timeout {
            Timeout::Infinite => return self.lock(),
            Timeout::Val(wait) => std::time::Instant::now() + wait,
        };
        loop {
            match self.try_acquire()? {
                Some(Acquired::Clean(guard)) => return Ok(trait_guard(guard)),
                Some(Acquired::OwnerDied(_released)) => {
                    return Err("the owner of the mutex died while holding it".into());
                }
                None if std::time::Instant::now() >= end => {
                    return Err("timed out waiting for the mutex".into());
                }
                None => std::thread::sleep(std::time::Duration::from_micros(50)),
            }
        }
    }

    fn release(&self) -> TraitResult<()> {
        self.unlock();
        Ok(())
    }

    unsafe fn get_inner(&self) -> &mut *mut u8 {
        // SAFETY: the trait hands this out to the holder of the guard only, and one thread holds it.
        unsafe { &mut *self.data.get() }
    }
}

/// Turns our guard into the trait's, which has no public constructor: it is a struct of the one field `&dyn LockImpl`.
fn trait_guard(guard: Guard<'_>) -> LockGuard<'_> {
    const _: () = assert!(size_of::<LockGuard<'static>>() == size_of::<&'static dyn LockImpl>());
    const _: () = assert!(align_of::<LockGuard<'static>>() == align_of::<&'static dyn LockImpl>());
    let lock: &dyn LockImpl = guard.lock;
    std::mem::forget(guard);
    // SAFETY: of equal size, so the struct's only field fills it; raw_sync is pinned to the version whose source was read.
    unsafe { std::mem::transmute::<&dyn LockImpl, LockGuard<'_>>(lock) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_heap() -> (Box<[u64; 8]>, RobustMutex) {
        let mut room = Box::new([0u64; 8]);
        let at = NonNull::from(&mut room[..]).cast();
        // SAFETY: the box is aligned, has 64 bytes, is used by nobody else and outlives the mutex in these tests.
        let lock = unsafe { RobustMutex::create_in(at, std::ptr::null_mut()) }.expect("a new mutex");
        (room, lock)
    }

    #[test]
    fn a_held_mutex_is_busy_for_others() {
        let (_room, lock) = on_heap();
        let guard = lock.acquire().expect("free");
        std::thread::scope(|s| {
            let busy = s.spawn(|| lock.try_acquire().expect("usable").is_none()).join();
            assert!(busy.expect("no panic"));
        });
        drop(guard);
        assert!(matches!(lock.try_acquire(), Ok(Some(Acquired::Clean(_)))));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no pthread_mutex_timedlock")]
    fn a_wait_for_a_held_mutex_ends() {
        let (_room, lock) = on_heap();
        let lock = &lock;
        let guard = lock.acquire().expect("free");
        std::thread::scope(|s| {
            let limit = Duration::from_millis(20);
            let late = s.spawn(move || lock.acquire_within(limit).expect("usable").is_none()).join();
            assert!(late.expect("no panic"));
        });
        drop(guard);
        assert!(matches!(lock.acquire_within(Duration::ZERO), Ok(Some(Acquired::Clean(_)))));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no robust mutexes")]
    fn the_death_of_the_owner_is_a_value_once() {
        let (_room, lock) = on_heap();
        std::thread::scope(|s| {
            // A thread that ends while it holds the lock is the same to the kernel as a process that does.
            s.spawn(|| std::mem::forget(lock.acquire().expect("free")));
        });
        assert!(matches!(lock.acquire(), Ok(Acquired::OwnerDied(_))));
        assert!(matches!(lock.acquire(), Ok(Acquired::Clean(_))), "consistent again");
    }

    #[test]
    fn raw_syncs_traits_lock_and_release_it() {
        let mut room = Box::new([0u64; 8]);
        let at = room.as_mut_ptr().cast::<u8>();
        // SAFETY: as in `on_heap`.
        let (lock, used) =
            unsafe { <RobustMutex as LockInit>::new(at, std::ptr::null_mut()) }.expect("a mutex");
        assert_eq!(used, <RobustMutex as LockInit>::size_of(None));
        let guard = lock.lock().expect("free");
        std::thread::scope(|s| {
            let wait = Timeout::Val(std::time::Duration::from_millis(2));
            let lock = SendLock(&*lock);
            assert!(s.spawn(move || lock.get().try_lock(wait).is_err()).join().expect("no panic"));
        });
        drop(guard);
        drop(lock.try_lock(Timeout::Val(std::time::Duration::ZERO)).expect("released"));
    }

    struct SendLock<'a>(&'a dyn LockImpl);
    impl<'a> SendLock<'a> {
        fn get(&self) -> &'a dyn LockImpl {
            self.0
        }
    }
    // SAFETY: the trait object is a `RobustMutex`, which is `Sync`.
    unsafe impl Send for SendLock<'_> {}
}
