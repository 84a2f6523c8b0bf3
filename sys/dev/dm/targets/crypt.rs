// SPDX-License-Identifier: BSD-2-Clause

//! `crypt CIPHER KEY IVOFFSET DEV OFFSET [#FEATURES FEATURE...]`: a component whose sectors are
//! encrypted, as Linux's dm-crypt has them.
//!
//! # Where the work is done
//!
//! *Reads* go to the component from their sender's thread, into the sender's own memory
//! ([`Worker::at_once`]). Their answer comes in any context, where no cipher may run, so that it
//! only puts the job into the queue `READS`; a lane decrypts the data where it lies and ends the
//! job. It never waits for anything. Where the component has answered before its sender's thread
//! returns, as memory does, that thread decrypts. So reads need no memory of ours, and no lane
//! while the component is at work.
//!
//! *Writes* are encrypted into memory of the line's own, and sent from there: the sender's data
//! stays as it is. Their sender's thread does that, where it may compute, and a buffer is left of
//! those in `WriteBuffers`, as many as there are CPUs; the buffer is the write's until the
//! component has answered. Else, and where it must be on stable storage when it is over, for which
//! a flush may be needed, the write waits in the queue `WRITES` for a lane, which encrypts it into
//! the lane's buffer; the lane is the write's until the component has answered. So one sender with
//! many writes at a time encrypts a few, and lanes encrypt the rest meanwhile. A job is never
//! larger than a buffer. A lane serves flushes and discards.
//!
//! *Threads*: one for each CPU, up to `THREADS`; lanes are dealt out to them in turn, and idle
//! lanes are taken from the first, so that two jobs of one queue at one time have two threads. They
//! call ciphers, and so do senders' threads as above, never an interrupt: ciphers use the FPU, a
//! sector a call.
//!
//! *Memory*: all of it is taken when the table is loaded. I/O that finds no job or no lane waits
//! for another to end, and none waits for more than that, so that a page-out goes on without
//! memory.
//!
//! # The key's owners
//!
//! `Keys` are made by `new` and by the message `key set`, and wiped with their last reference: the
//! target has one, and a lane or a sender's thread for as long as it encrypts or decrypts a
//! stretch. The message takes them away only while no job is there, between [`Worker::stop`] and
//! [`Worker::start`], so that `key wipe` returns when they are wiped.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use dm_sync::Spin;

use crate::aes::{Aes, Data};
use crate::job::{Job, Op, Place};
use crate::lane::{Lane, Outcome};
use crate::mistake::Mistake;
use crate::target::{
    ComponentIndex, Devs, Extent, IoRange, LineSpec, Made, Mapping, Target, TargetType, Words,
};
use crate::units::DEV_BSIZE;
use crate::worker::{Needs, Worker};
use crate::{Errno, Sector};

mod iv;
mod keys;
#[cfg(test)]
mod tests;
mod words;
mod write_buffers;

use keys::{Digits, Keys, Secret};
use words::{Chain, Cipher, Features, hidden, wrong};
use write_buffers::WriteBuffers;

/// The target type `crypt`.
pub static TYPE: TargetType = TargetType { name: "crypt", version: [1, 17, 0], new };

/// The queues. Flushes and discards always come to the first.
const WRITES: usize = 0;
const READS: usize = 1;

/// Sectors that are encrypted at once: NetBSD's largest I/O, 64 KiB.
const AT_ONCE: Sector = Sector(128);

/// Bytes of a buffer that a write is encrypted into.
const BUFFER: usize = AT_ONCE.0 as usize * DEV_BSIZE as usize;

/// Threads of a table at most.
const THREADS: usize = 8;

/// Jobs at one time.
const JOBS: usize = 64;

/// A `crypt` line.
///
/// Fields are marked by what protects them: (-) never changes; (l) a lock of its own; (k) atomic,
/// set and looked at under the lock of `keys`.
struct Crypt {
    /// (-) The kernel's AES.
    aes: &'static dyn Aes,
    /// (-) The cipher that the table names.
    cipher: Cipher,
    /// (-) The features that the table names.
    features: Features,
    /// (-) Bytes of the key.
    key_size: usize,
    /// (-) Added to each sector's number before its IV is made; the sum wraps.
    iv_offset: u64,
    /// (-) The component.
    component: ComponentIndex,
    /// (-) The first sector there.
    offset: Sector,
    /// (-) The number of threads that the line asks for.
    threads: usize,
    /// (l) Memory that senders' threads encrypt into.
    write_buffers: WriteBuffers,
    /// (l) The keys; `None` after `key wipe`. They are dropped, and so wiped, without the lock.
    keys: Spin<Option<Arc<Keys>>>,
    /// (k) `true` from `start` to `stop`: the keys stay as they are. Cleared without the lock.
    running: AtomicBool,
}

/// Reads a line. No word of it is shown in a refusal, but a component's path: a key may stand in
/// the wrong place.
fn new(line: &mut LineSpec<'_>) -> Result<Made, Mistake> {
    let missing = "the kernel has no AES: its configuration must say so, or have cgd";
    let aes = line.aes().ok_or(Mistake::new(Errno::ENOENT, missing))?;
    if line.params.left() < 5 {
        return Err(wrong("there are fewer than five parameters"));
    }
    let name = line.params.word("the cipher is missing")?;
    let cipher = Cipher::new(name, line)?;
    let secret = secret(line.params.word("the key is missing")?)?;
    let key_size = secret.len();
    line.reserve(Keys::room(&cipher).saturating_add(key_size))?;
    let keys = Keys::new(aes, &cipher, secret);
    let keys = keys.ok_or(wrong("the key is not as long as the cipher's"))?;
    let iv_offset = hidden(line.params.number("the IV's offset is not a number of sectors"))?;
    let path = hidden(line.params.path())?;
    let offset = Sector(hidden(line.params.number("the offset is not a number of sectors"))?);
    let features = Features::new(line)?;
    let unit = features.sector_size;
    if !line.length.is_aligned(unit) {
        return Err(wrong("the line's length is not whole encrypted sectors"));
    }
    if !Sector(iv_offset).is_aligned(unit) {
        return Err(wrong("the IV's offset is not whole encrypted sectors"));
    }
    if !offset.is_aligned(unit) {
        return Err(wrong("the offset is not whole encrypted sectors"));
    }
    let component = match path.starts_with('/') {
        true => line.component(path, offset, line.length)?,
        false => hidden(line.component(path, offset, line.length))?,
    };
    line.needs_sectors_of(unit);
    let threads = line.cpus().clamp(1, THREADS);
    line.reserve(threads.saturating_mul(BUFFER))?;
    Ok(Made::serves(Crypt {
        aes,
        cipher,
        features,
        key_size,
        iv_offset,
        component,
        offset,
        threads,
        write_buffers: WriteBuffers::new(threads, BUFFER),
        keys: Spin::new(Some(Arc::new(keys))),
        running: AtomicBool::new(false),
    }))
}

/// Reads a key.
fn secret(text: &str) -> Result<Secret, Mistake> {
    if text.starts_with(':') {
        return Err(wrong("there is no keyring: the key must be given in hexadecimal"));
    }
    Secret::parse(text).ok_or(wrong("the key is not in hexadecimal"))
}

impl Crypt {
    fn place(&self, start: Sector) -> Place {
        // The sum cannot wrap: the line was checked against the component's end.
        let sector = Sector(self.offset.0.wrapping_add(start.0));
        Place { component: self.component, sector }
    }

    /// The keys, for a stretch of sectors.
    ///
    /// # Errors
    /// EIO if they were taken away, which no job lives to see.
    fn keys(&self) -> Result<Arc<Keys>, Errno> {
        self.keys.lock().clone().ok_or(Errno::EIO)
    }

    /// Encrypts or decrypts whole sectors. `start` is the first, counted from the line's start.
    fn run<'d>(&self, keys: &Keys, op: Op, start: Sector, sectors: impl Iterator<Item = Data<'d>>) {
        let Features { sector_size, large, .. } = self.features;
        let (aes, chain) = (self.aes, self.cipher.chain);
        let step = u64::from(sector_size / DEV_BSIZE);
        let mut sector = start.0.wrapping_add(self.iv_offset);
        for data in sectors {
            match keys.part(sector) {
                Some(part) => {
                    let number = if large { sector / step } else { sector };
                    let mut iv = self.cipher.iv.of(number, sector_size, (aes, chain, keys, part));
                    match op {
                        Op::Write => part.encrypt(aes, chain, data, &mut iv),
                        _ => part.decrypt(aes, chain, data, &mut iv),
                    }
                }
                None => {
                    if let Data::Apart(from, to) = data {
                        from.iter().zip(to).for_each(|(from, to)| *to = *from);
                    }
                }
            }
            sector = sector.wrapping_add(step);
        }
    }

    /// Decrypts the data of a read in place.
    fn read(&self, job: &mut Job) -> Result<(), Errno> {
        let (keys, start) = (self.keys()?, job.start());
        let unit = self.features.sector_size as usize;
        let decrypted = job.with_data(|data| {
            self.run(&keys, Op::Read, start, data.chunks_exact_mut(unit).map(Data::Here));
        });
        decrypted.ok_or(Errno::EIO)
    }

    /// Encrypts all of a write's data into the first bytes of a buffer.
    ///
    /// # Errors
    /// EIO if not all of the data fit, or if the keys were taken away.
    fn encrypt(&self, job: &mut Job, buffer: &mut [u8]) -> Result<(), Errno> {
        let (keys, start, length) = (self.keys()?, job.start(), job.length());
        let unit = self.features.sector_size as usize;
        let encrypted = job.with_data(|data| {
            let bytes = data.len().min(buffer.len());
            let sectors = data.chunks_exact(unit).zip(buffer.chunks_exact_mut(unit));
            let sectors = sectors.map(|(from, to)| Data::Apart(from, to));
            self.run(&keys, Op::Write, start, sectors);
            bytes as u64
        });
        match encrypted {
            Some(bytes) if Some(bytes) == length.to_bytes() => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    /// Encrypts a write's data into the lane's buffer and sends it.
    async fn write(&self, job: &mut Job, lane: &mut Lane) -> Result<(), Errno> {
        self.encrypt(job, lane.buffer())?;
        lane.write(&[self.place(job.start())], job.length(), job.fua()).await.ok()
    }

    /// Encrypts a write's data and sends it, in its sender's thread. Returns the job if a lane has
    /// to serve it.
    fn write_at_once(&self, mut job: Job) -> Option<Job> {
        if job.fua() || !job.may_compute() {
            return Some(job);
        }
        let Some(mut buffer) = self.write_buffers.take() else { return Some(job) };
        match self.encrypt(&mut job, &mut buffer) {
            Ok(()) => {
                let place = self.place(job.start());
                job.forward_changed(buffer, place);
            }
            Err(errno) => {
                self.write_buffers.give(buffer);
                job.fail(errno);
            }
        }
        None
    }

    /// Obeys the messages `key set KEY` and `key wipe`.
    fn change_key(&self, words: &mut Words<'_>) -> Result<(), Errno> {
        let mut word = || words.word("").map_err(|_| Errno::EINVAL);
        let command = word()?;
        let keys = match () {
            () if command.eq_ignore_ascii_case("set") => {
                let secret = Secret::parse(word()?).ok_or(Errno::EINVAL)?;
                if secret.len() != self.key_size {
                    return Err(Errno::EINVAL);
                }
                let keys = Keys::new(self.aes, &self.cipher, secret).ok_or(Errno::EINVAL)?;
                Some(Arc::new(keys))
            }
            () if command.eq_ignore_ascii_case("wipe") => None,
            () => return Err(Errno::EINVAL),
        };
        words.end().map_err(|_| Errno::EINVAL)?;
        // Wiped after the lock, which is held for a few instructions only.
        let before = {
            let mut current = self.keys.lock();
            // Under the lock that a start has, too: nothing is encrypted with keys that are about
            // to be replaced.
            if self.running.load(Ordering::SeqCst) {
                return Err(Errno::EINVAL);
            }
            core::mem::replace(&mut *current, keys)
        };
        drop(before);
        Ok(())
    }
}

impl Target for Crypt {
    fn kind(&self) -> &'static TargetType {
        &TYPE
    }

    fn map(&self, io: &IoRange) -> Mapping<'_> {
        let length = io.length;
        let unit = self.features.sector_size;
        // The device's sectors are as large; but nothing half of a sector may come to be encrypted.
        if !io.start.is_aligned(unit) || !length.is_aligned(unit) {
            return Mapping::Fail { length, error: Errno::EIO };
        }
        match io.op {
            Op::Discard if !self.features.allow_discards => {
                Mapping::Fail { length, error: Errno::EOPNOTSUPP }
            }
            Op::Read => Mapping::Take { length, queue: READS },
            // As much as a lane encrypts; the rest is asked for again.
            Op::Write => Mapping::Take { length: length.min(AT_ONCE), queue: WRITES },
            Op::Discard | Op::Flush => Mapping::Take { length, queue: WRITES },
        }
    }

    fn table(&self, out: &mut dyn fmt::Write, devs: &Devs<'_>) -> fmt::Result {
        let keys = match devs.shows_secrets() {
            true => self.keys.lock().clone(),
            false => None,
        };
        let key = Digits { keys: keys.as_deref(), bytes: self.key_size };
        let Crypt { cipher, iv_offset, offset, features, .. } = self;
        let dev = devs.get(self.component);
        write!(out, "{cipher} {key} {iv_offset} {dev} {offset}{features}")
    }

    fn extents(&self, length: Sector, each: &mut dyn FnMut(Extent)) {
        each(Extent { component: self.component, start: self.offset, length });
    }

    fn message(&self, text: &str, _reply: &mut String) -> Result<(), Errno> {
        let mut words = Words::new(text);
        let first = words.word("").map_err(|_| Errno::EINVAL)?;
        match first.eq_ignore_ascii_case("key") {
            true => self.change_key(&mut words),
            false => Err(Errno::EINVAL),
        }
    }
}

impl Worker for Crypt {
    fn needs(&self) -> Needs {
        let writers = self.threads.saturating_mul(2).max(8);
        Needs {
            queues: vec![writers, self.threads],
            jobs: JOBS,
            buffer: BUFFER,
            buffered: 1,
            threads: self.threads,
            ..Needs::default()
        }
    }

    fn at_once(&self, job: Job) -> Option<Job> {
        match job.op() {
            Op::Read => {
                let place = self.place(job.start());
                job.forward_each(&[place]);
                None
            }
            Op::Write => self.write_at_once(job),
            Op::Flush | Op::Discard => Some(job),
        }
    }

    fn answered(&self, mut job: Job, outcome: Outcome) -> Option<Job> {
        match outcome.ok() {
            result if job.is_write() => {
                if let Some(buffer) = job.take_changed() {
                    self.write_buffers.give(buffer);
                }
                job.end(result);
            }
            // Nothing to decrypt.
            Ok(()) if self.cipher.chain == Chain::Null => job.done(),
            // The sender's thread decrypts.
            Ok(()) if job.may_compute() => {
                let result = self.read(&mut job);
                job.end(result);
            }
            Ok(()) => return Some(job),
            Err(errno) => job.fail(errno),
        }
        None
    }

    async fn serve(&self, mut job: Job, lane: &mut Lane) {
        let result = match job.op() {
            Op::Read => self.read(&mut job),
            Op::Write => self.write(&mut job, lane).await,
            Op::Flush => lane.flush(&[self.component]).await.ok(),
            Op::Discard => lane.discard(self.place(job.start()), job.length()).await,
        };
        job.end(result);
    }

    async fn start(&self, _lane: &mut Lane) -> Result<(), Errno> {
        let keys = self.keys.lock();
        if keys.is_none() {
            return Err(Errno::EAGAIN);
        }
        // Under the lock, as `change_key` looks at it.
        self.running.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn stop(&self, _lane: &mut Lane) {
        self.running.store(false, Ordering::SeqCst);
    }
}
