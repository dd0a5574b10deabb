//! Maps the bytes of a segment and hands out checked access to them: the one place where shared memory is touched.
//!
//! Promises: every offset is checked against the mapping before use (I6); shared bytes are seen only as atomics or through copies,
//! never as `&[u8]`, so no Rust reference crosses processes. Bytes of the control area are read and written through the mapping,
//! which was reserved with `posix_fallocate` before (I8). Bytes of the arena are *written* with `pwrite`: the kernel then neither
//! clears pages that are overwritten at once nor takes a fault for each, and a full file system is ENOSPC and not SIGBUS. But it lets in one writer of a
//! file at a time, so where there are [`MANY_WRITERS`] they write through the mapping as well, after the kernel was asked for the pages (`MADV_POPULATE_WRITE`),
//! which says that there is no room in the same way.
//!
//! What is mapped to be read only is copied with `pread`, so that a segment that becomes shorter under it is an error, and looking at memory that was never
//! written does not take any.
//!
//! A segment may lie in several objects (see [`crate::segment`]). Each is mapped where there is room; offsets count through all of them, and bytes that are asked
//! for together lie in one.
//!
//! A private mapping of heap memory stands in for a segment where shared memory cannot be had (Miri) or is not needed (tests).

use crate::error::{Error, Result};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use memmap2::MmapRaw;
use nix::errno::Errno;
use nix::sys::mman::{MmapAdvise, madvise};
use shared_memory::Shmem;
use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;

enum Backing {
    /// The first field unmaps when it is dropped.
    Shared { _shmem: Shmem, file: File },
    /// A file in a directory, or whatever is mapped to be read only.
    Mapped { _map: MmapRaw, file: File, writable: bool },
    /// A copy of the file's first bytes, and the file for all others.
    Copied { words: NonNull<[u64]>, file: File },
    /// Memory from a box that was given up, so that no owner of it stands beside the pointers into it.
    Heap { words: NonNull<[u64]> },
}

/// An object beside the first one.
struct Beside {
    /// None where bytes are read from the file.
    map: Option<MmapRaw>,
    file: File,
}

/// A mapped segment: `len` bytes that other processes may change at any time.
pub struct Mapping {
    name: String,
    base: NonNull<u8>,
    len: usize,
    /// So many of the bytes are at `base`: all of the first object, but for a copy.
    there: usize,
    /// Bytes of the first object.
    own: usize,
    /// The others, `each` bytes of each.
    beside: Vec<Beside>,
    each: usize,
    backing: Backing,
    /// Behind what it waits with: fields are dropped in this order.
    closing: Closing,
    /// Bytes of the arena are written through the mapping.
    writes_through: AtomicBool,
    /// Bytes are copied from the file, though they are mapped.
    reads_file: AtomicBool,
}

/// From so many writers on `pwrite` is slower than twice the work by each: it writes 3.3 GB/s into one file of shared memory for all of them together, the
/// mapping takes 1.5 GB/s from each (Zen 5, Linux 6.18), and a worker writes up to half a gigabyte in a second.
pub const MANY_WRITERS: u64 = 6;

/// Threads that close objects; dropping it waits for them.
#[derive(Default)]
struct Closing(Vec<std::thread::JoinHandle<()>>);

impl Drop for Closing {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            let _ = thread.join();
        }
    }
}

// SAFETY: all access goes through atomics or through copies of bytes that the protocol gives to one owner (I2, I4).
unsafe impl Send for Mapping {}
// SAFETY: as above; no method hands out a plain reference into the mapping.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Backing::Heap { words } | Backing::Copied { words, .. } = &self.backing {
            // SAFETY: `heap` or `copied` leaked this very box; references into it borrow the mapping, which ends here.
            drop(unsafe { Box::from_raw(words.as_ptr()) });
        }
    }
}

impl Mapping {
    /// Takes over a mapping made by `shared_memory`, and a file that is open on the same object.
    pub(crate) fn shared(name: String, shmem: Shmem, file: File) -> Result<Self> {
        let len = shmem.len();
        let Some(base) = NonNull::new(shmem.as_ptr()) else {
            return Err(Error::OutOfBounds { name, offset: 0, len: 0, limit: 0 });
        };
        Ok(Self {
            name,
            base,
            len,
            there: len,
            own: len,
            beside: Vec::new(),
            each: 0,
            closing: Closing::default(),
            backing: Backing::Shared { _shmem: shmem, file },
            writes_through: false.into(),
            reads_file: false.into(),
        })
    }

    /// Takes over a mapping made by `memmap2`, and the file behind it.
    pub(crate) fn mapped(name: String, map: MmapRaw, file: File, writable: bool) -> Self {
        let (len, base) = (map.len(), NonNull::new(map.as_mut_ptr()).unwrap_or(NonNull::dangling()));
        Self {
            name,
            base,
            len,
            there: len,
            own: len,
            beside: Vec::new(),
            each: 0,
            closing: Closing::default(),
            backing: Backing::Mapped { _map: map, file, writable },
            writes_through: false.into(),
            reads_file: false.into(),
        }
    }

    /// Takes the first bytes of a file of `len` bytes, which were copied, and the file for those behind them.
    pub(crate) fn copied(name: String, first: &[u8], len: usize, file: File) -> Self {
        let words: Vec<u64> = first
            .chunks(8)
            .map(|bytes| {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                u64::from_ne_bytes(word)
            })
            .collect();
        let words = NonNull::from(Box::leak(words.into_boxed_slice()));
        Self {
            name,
            base: words.cast(),
            len,
            there: first.len(),
            own: len,
            beside: Vec::new(),
            each: 0,
            closing: Closing::default(),
            backing: Backing::Copied { words, file },
            writes_through: false.into(),
            reads_file: false.into(),
        }
    }

    /// Private memory of at least `len` bytes, zeroed.
    pub(crate) fn heap(len: usize) -> Self {
        let words = NonNull::from(Box::leak(vec![0u64; len.div_ceil(8)].into_boxed_slice()));
        Self {
            name: "(private)".into(),
            base: words.cast(),
            len: words.len() * 8,
            there: words.len() * 8,
            own: words.len() * 8,
            beside: Vec::new(),
            each: 0,
            closing: Closing::default(),
            backing: Backing::Heap { words },
            writes_through: false.into(),
            reads_file: false.into(),
        }
    }

    /// Adds an object of `each` bytes, which continues what is there: mapped, or to be read from its file.
    pub(crate) fn add(&mut self, map: Option<MmapRaw>, file: File, each: usize) {
        self.beside.push(Beside { map, file });
        self.each = each;
        self.len = self.own + each * self.beside.len();
    }

    /// Lets go of the objects beside the first one, each in a thread of its own; dropping the mapping waits for them. Who is the last that has an object gives
    /// its pages back one by one.
    pub(crate) fn close_side_by_side(&mut self) {
        for object in self.beside.drain(..) {
            // Where there is no thread to be had the object is closed here.
            let thread = std::thread::Builder::new().spawn(move || drop(object));
            self.closing.0.extend(thread);
        }
        self.len = self.own;
    }

    /// Name of the segment, for messages and for attaching.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that are mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is mapped; never so for a segment.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file behind a shared mapping.
    pub(crate) fn file(&self) -> Option<&File> {
        match &self.backing {
            Backing::Shared { file, .. } | Backing::Mapped { file, .. } | Backing::Copied { file, .. } => {
                Some(file)
            }
            Backing::Heap { .. } => None,
        }
    }

    /// The files of all objects.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.file().into_iter().chain(self.beside.iter().map(|object| &object.file))
    }

    /// The object beside the first one that has the byte at `offset`, and the place there.
    fn beside_at(&self, offset: usize) -> Option<(&Beside, usize)> {
        let at = offset.checked_sub(self.own)?;
        // There is no object where `each` is 0.
        Some((self.beside.get(at.checked_div(self.each)?)?, at % self.each))
    }

    /// The file that has the byte at `offset`, and the place there.
    fn file_at(&self, offset: usize) -> Option<(&File, u64)> {
        match self.beside_at(offset) {
            Some((object, at)) => Some((&object.file, at as u64)),
            None => self.file().map(|file| (file, offset as u64)),
        }
    }

    /// The file from which bytes are read that may not be mapped, or mapped to be read only.
    fn file_to_read(&self, offset: usize) -> Option<(&File, u64)> {
        match &self.backing {
            Backing::Mapped { writable: false, .. } | Backing::Copied { .. } => self.file_at(offset),
            _ if self.reads_file.load(Ordering::Relaxed) => self.file_at(offset),
            _ => None,
        }
    }

    fn outside(&self, offset: usize, len: usize) -> Error {
        let (offset, len, limit) = (offset as u64, len as u64, self.len as u64);
        Error::OutOfBounds { name: self.name.clone(), offset, len, limit }
    }

    /// Looks that `len` bytes at `offset` are of the segment, wherever they are.
    fn within(&self, offset: usize, len: usize) -> Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        end.map(drop).ok_or_else(|| self.outside(offset, len))
    }

    fn check(&self, offset: usize, len: usize, align: usize) -> Result<NonNull<u8>> {
        let end = offset.checked_add(len).filter(|end| *end <= self.there && offset.is_multiple_of(align));
        if end.is_none() {
            return self.check_beside(offset, len, align).ok_or_else(|| self.outside(offset, len));
        }
        // SAFETY: I6: offset + len was just found to lie inside the bytes at `base`.
        Ok(unsafe { self.base.add(offset) })
    }

    /// The same for what lies in another object than the first.
    fn check_beside(&self, offset: usize, len: usize, align: usize) -> Option<NonNull<u8>> {
        let (object, at) = self.beside_at(offset)?;
        let map = object.map.as_ref()?;
        at.checked_add(len).filter(|end| *end <= map.len() && at.is_multiple_of(align))?;
        let base = NonNull::new(map.as_mut_ptr())?;
        // SAFETY: I6: at + len was just found to lie inside the bytes that are mapped at `base`.
        Some(unsafe { base.add(at) })
    }

    /// Start of `len` bytes at `offset`, for a structure that the C library works on (the robust mutex).
    pub(crate) fn address(&self, offset: usize, len: usize) -> Result<NonNull<u8>> {
        self.check(offset, len, 8)
    }

    /// The 64-bit word at `offset`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] when it does not lie in the mapping or is not aligned.
    pub fn word(&self, offset: usize) -> Result<&AtomicU64> {
        let at = self.check(offset, 8, 8)?;
        // SAFETY: I6: inside the mapping and aligned; the mapping lives as long as the reference; every access to it is atomic.
        Ok(unsafe { AtomicU64::from_ptr(at.cast().as_ptr()) })
    }

    /// Copies the eight 64-bit words at `offset`, each loaded by itself.
    ///
    /// # Errors
    /// As [`Mapping::word`].
    #[inline]
    pub fn line(&self, offset: usize) -> Result<[u64; 8]> {
        let at = self.check(offset, 64, 8)?;
        // SAFETY: I6: inside the mapping and aligned; the mapping lives as long as the reference; every access to it is atomic.
        let words = unsafe { at.cast::<[AtomicU64; 8]>().as_ref() };
        Ok(words.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// The 32-bit word at `offset`.
    ///
    /// # Errors
    /// As [`Mapping::word`].
    pub fn half(&self, offset: usize) -> Result<&AtomicU32> {
        let at = self.check(offset, 4, 4)?;
        // SAFETY: I6: inside the mapping and aligned; the mapping lives as long as the reference; every access to it is atomic.
        Ok(unsafe { AtomicU32::from_ptr(at.cast().as_ptr()) })
    }

    /// Copies `into.len()` bytes at `offset` out of the segment.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        if let Some((file, at)) = self.file_to_read(offset) {
            self.within(offset, into.len())?;
            return file.read_exact_at(into, at).map_err(|source| self.unread(source));
        }
        let from = self.check(offset, into.len(), 1)?;
        // SAFETY: I6: the source lies in the mapping; the destination is a private slice. I4: the bytes do not change while who reads
        // them has its claim; what one that lost it copies is compared with a digest.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Appends `len` bytes at `offset` of the segment to `into`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    pub fn read_to_vec(&self, offset: usize, len: usize, into: &mut Vec<u8>) -> Result<()> {
        if let Some((file, at)) = self.file_to_read(offset) {
            self.within(offset, len)?;
            let old = into.len();
            into.resize(old + len, 0);
            return file.read_exact_at(&mut into[old..], at).map_err(|source| self.unread(source));
        }
        let from = self.check(offset, len, 1)?;
        into.reserve(len);
        let room = into.spare_capacity_mut().as_mut_ptr().cast::<u8>();
        // SAFETY: I6: the source lies in the mapping; `room` has at least `len` bytes of spare capacity.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), room, len) };
        // SAFETY: the `len` bytes after the old length were just written.
        unsafe { into.set_len(into.len() + len) };
        Ok(())
    }

    /// Asks for the cache lines of `len` bytes at `offset`, which are to be read soon; nothing where there are none.
    pub fn prefetch(&self, offset: usize, len: usize) {
        let Ok(from) = self.check(offset, len, 1) else { return };
        for line in (0..len).step_by(64) {
            prefetch(from.as_ptr().wrapping_add(line));
        }
    }

    /// Copies `bytes` to `offset` through the mapping. For the control area, which is reserved.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`].
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let to = self.check(offset, bytes.len(), 1)?;
        if let Backing::Mapped { writable: false, .. } = self.backing {
            let source = std::io::ErrorKind::PermissionDenied.into();
            return Err(Error::Os { action: "write to", name: self.name.clone(), source });
        }
        // SAFETY: I6: the destination lies in the mapping; I2: it belongs to the caller; the source is a private slice.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Says that bytes are copied from the file from now on, for who reads a little of many pages: each that is mapped takes a fault, and time at the end.
    pub fn read_file(&self) {
        self.reads_file.store(true, Ordering::Relaxed);
    }

    /// Says how many processes write to one object at the same time. In the file of a directory `pwrite` stays: a disk has its own limits.
    pub fn expect_writers(&self, writers: u64) {
        let in_memory = self.file().is_some() && !self.name.contains('/');
        self.writes_through.store(in_memory && writers >= MANY_WRITERS, Ordering::Relaxed);
    }

    /// Copies `bytes` to `offset`, whose pages need not exist yet: for the arena.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::NoRoom`] when the file system is full; [`Error::Os`].
    pub fn store(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let Some((file, at)) = self.file_at(offset) else { return self.write(offset, bytes) };
        let to = self.check(offset, bytes.len(), 1)?;
        if self.writes_through.load(Ordering::Relaxed) {
            match populate(to, bytes.len()) {
                Ok(()) => return self.write(offset, bytes),
                // What would have been SIGBUS.
                Err(Errno::EFAULT | Errno::ENOMEM) => return Err(self.no_room(bytes.len() as u64)),
                // A kernel before 5.14.
                Err(_) => self.writes_through.store(false, Ordering::Relaxed),
            }
        }
        match file.write_all_at(bytes, at) {
            Ok(()) => Ok(()),
            Err(source) if source.raw_os_error() == Some(libc::ENOSPC) => {
                Err(self.no_room(bytes.len() as u64))
            }
            Err(source) => Err(Error::Os { action: "write to", name: self.name.clone(), source }),
        }
    }

    /// Gives the memory behind `len` bytes at `offset` back to the system, for chunks that nobody reads any more: they are zeros then. It is
    /// no error if that cannot be done.
    pub(crate) fn give_up(&self, offset: usize, len: usize) {
        use nix::fcntl::{FallocateFlags, fallocate};
        let Some((file, at)) = self.file_at(offset) else { return };
        if self.check(offset, len, 1).is_ok() {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let _ = fallocate(file, flags, at as i64, len as i64);
        }
    }

    /// Reserves `len` bytes from `offset` on, so that touching them cannot fail.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the file system is full; [`Error::Os`].
    pub(crate) fn reserve(&self, offset: usize, len: usize) -> Result<()> {
        let Some(file) = self.file() else { return Ok(()) };
        loop {
            match nix::fcntl::posix_fallocate(file, offset as i64, len as i64) {
                Ok(()) => return Ok(()),
                Err(nix::Error::EINTR) => continue,
                Err(nix::Error::ENOSPC) => return Err(self.no_room(len as u64)),
                Err(e) => {
                    return Err(Error::Os { action: "reserve", name: self.name.clone(), source: e.into() });
                }
            }
        }
    }

    fn unread(&self, source: std::io::Error) -> Error {
        Error::Os { action: "read", name: self.name.clone(), source }
    }

    fn no_room(&self, wanted: u64) -> Error {
        let (free, total) = self.file().map_or((0, 0), |file| match nix::sys::statvfs::fstatvfs(file) {
            Ok(v) => (v.blocks_available() * v.fragment_size(), v.blocks() * v.fragment_size()),
            Err(_) => (0, 0),
        });
        Error::NoRoom { name: self.name.clone(), wanted, free, total }
    }
}

/// Lets there be memory behind the pages of `len` bytes from `place` on, which lie in a mapping that can be written to.
fn populate(place: NonNull<u8>, len: usize) -> nix::Result<()> {
    const PAGE: usize = 4096;
    let into = place.addr().get() % PAGE;
    let first = place.map_addr(|at| NonZero::new(at.get() - into).unwrap_or(at));
    // SAFETY: the call reads and changes no byte; the pages lie in the mapping (I6), whose length is whole pages.
    unsafe { madvise(first.cast(), len + into, MmapAdvise::MADV_POPULATE_WRITE) }
}

/// Asks for the cache line of `place`; changes nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(place: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint; it reads nothing and faults on nothing. SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}
