// SPDX-License-Identifier: BSD-2-Clause

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use proptest::prelude::*;
use tempfile::TempPath;

use super::*;
use crate::export::{Description, Device, Extent, Refusal};
use crate::proto::{self, ClientOption, Error, RawRequest, command, option, option_reply};
use crate::{Client, Limits, Operation, Uri, about_to_block};

/// A time that nothing takes unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A device in memory, which can be told to wait.
#[derive(Default)]
pub(crate) struct Shared {
    data: Mutex<Vec<u8>>,
    /// Reads of the first byte wait until this many other reads have been done.
    hold: AtomicUsize,
    reads: Mutex<usize>,
    read: Condvar,
    said: Mutex<Vec<String>>,
}

pub(crate) struct Memory(Arc<Shared>);
pub(crate) struct Disk(Arc<Shared>);

impl Exports for Memory {
    type Device = Disk;

    fn names(&self) -> Result<Vec<String>, Refusal> {
        Ok(vec!["disk".into(), "busy".into()])
    }

    fn describe(&self, name: &str) -> Result<Description, Refusal> {
        let size = self.0.data.lock().unwrap().len() as u64;
        let found = Description { size, writable: true, least: 1, best: 4096 };
        if ["disk", "busy", ""].contains(&name) {
            return Ok(found);
        }
        Err(Refusal { unknown: true, text: "no such disk".into() })
    }

    fn open(&self, name: &str) -> Result<(Disk, Description), Refusal> {
        if name == "busy" {
            return Err(Refusal { unknown: false, text: "it is busy".into() });
        }
        Ok((Disk(self.0.clone()), self.describe(name)?))
    }

    fn complain(&self, text: &str) {
        self.0.said.lock().unwrap().push(text.into());
    }
}

impl Device for Disk {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        if offset == 0 && self.0.hold.load(Ordering::SeqCst) > 0 {
            about_to_block();
            let mut reads = self.0.reads.lock().unwrap();
            while *reads < self.0.hold.load(Ordering::SeqCst) {
                reads = self.0.read.wait(reads).unwrap();
            }
        } else {
            *self.0.reads.lock().unwrap() += 1;
            self.0.read.notify_all();
        }
        let data = self.0.data.lock().unwrap();
        buf.copy_from_slice(&data[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn write(&self, buf: &[u8], offset: u64, _fua: bool) -> Result<(), Error> {
        self.0.data.lock().unwrap()[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    fn trim(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.punch(offset, length)
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), Error> {
        self.0.data.lock().unwrap()[offset as usize..][..length as usize].fill(0);
        Ok(())
    }

    /// A page of zeroes is a hole.
    fn extents(&self, offset: u64, length: u64, count: usize) -> Result<Vec<Extent>, Error> {
        let data = self.0.data.lock().unwrap();
        let range = &data[offset as usize..][..length as usize];
        let pages = range.chunks(4096).map(|page| {
            let hole = page.iter().all(|byte| *byte == 0);
            Extent { length: page.len() as u64, hole, zero: hole }
        });
        Ok(pages.take(count).collect())
    }
}

/// A server, and where it listens.
pub(crate) struct Served {
    pub(crate) path: TempPath,
    pub(crate) shared: Arc<Shared>,
    server: Option<Server>,
}

impl Served {
    pub(crate) fn new(bytes: usize) -> Served {
        let made = tempfile::Builder::new().make(|path| UnixListener::bind(path));
        let (listener, path) = made.unwrap().into_parts();
        let shared = Arc::new(Shared::default());
        shared.data.lock().unwrap().resize(bytes, 0);
        let listener = Listener::Unix(listener);
        let memory = Arc::new(Memory(shared.clone()));
        let server = Some(Server::start(vec![listener], memory).unwrap());
        Served { path, shared, server }
    }

    pub(crate) fn uri(&self) -> Uri {
        Uri { place: crate::uri::Place::Unix(self.path.to_path_buf()), export: "disk".into() }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.uri(), Limits::default()).unwrap()
    }

    /// Ends the server as its owner does. `true` if clients had to be cut off.
    pub(crate) fn end(&mut self, patience: Duration) -> bool {
        let Some(server) = self.server.take() else { return false };
        server.stop_reading();
        let cut = !server.wait(patience);
        if cut {
            server.cut();
            assert!(server.wait(LIMIT), "threads are left");
        }
        server.join();
        cut
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end(LIMIT);
    }
}

/// A client that can send anything.
struct Raw(UnixStream);

impl Raw {
    fn connect(served: &Served) -> Raw {
        let mut stream = UnixStream::connect(&served.path).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut hello = [0; 18];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        Raw(stream)
    }

    fn option(&mut self, number: u32, data: &[u8]) {
        let mut bytes = proto::OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend(number.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.0.write_all(&bytes).unwrap();
    }

    fn reply(&mut self) -> (u32, Vec<u8>) {
        let mut header = [0; proto::OPTION_REPLY];
        self.0.read_exact(&mut header).unwrap();
        let (_, kind, length) = proto::parse_option_reply(&header).unwrap();
        let mut data = vec![0; length as usize];
        self.0.read_exact(&mut data).unwrap();
        (kind, data)
    }

    fn ask(&mut self, option: &ClientOption) -> u32 {
        let (number, data) = option.encode();
        self.option(number, &data);
        loop {
            match self.reply() {
                (option_reply::INFO | option_reply::SERVER | option_reply::META_CONTEXT, _) => {}
                (kind, _) => return kind,
            }
        }
    }

    /// Chooses the disk, with simple replies.
    fn ready(served: &Served) -> Raw {
        let mut raw = Raw::connect(served);
        raw.option(option::EXPORT_NAME, b"disk");
        raw.0.read_exact(&mut [0; 10]).unwrap();
        raw
    }

    fn send(&mut self, kind: u16, cookie: u64, offset: u64, length: u32) {
        let request = RawRequest { flags: 0, kind, cookie, offset, length };
        self.0.write_all(&request.encode()).unwrap();
    }

    fn simple(&mut self) -> (u64, u32) {
        let mut bytes = [0; proto::SIMPLE];
        self.0.read_exact(&mut bytes).unwrap();
        proto::parse_simple(&bytes).unwrap()
    }

    /// Reads until the server closes the connection.
    fn drain(mut self) {
        let mut sink = [0; 65536];
        while !matches!(self.0.read(&mut sink), Ok(0) | Err(_)) {}
    }
}

#[test]
fn haggling() {
    let served = Served::new(1 << 20);
    let mut raw = Raw::connect(&served);
    raw.option(77, b"whatever");
    assert_eq!(raw.reply().0, option_reply::UNSUPPORTED);
    raw.option(option::GO, b"\xff\xff\xff\xff");
    assert_eq!(raw.reply().0, option_reply::INVALID);
    raw.option(option::LIST, b"?");
    assert_eq!(raw.reply().0, option_reply::INVALID);
    raw.option(option::INFO, &vec![0; 1 << 20]);
    assert_eq!(raw.reply().0, option_reply::TOO_BIG);
    let query = vec!["base:allocation".to_string()];
    let meta = |name: &str| ClientOption::SetMeta(name.into(), query.clone());
    assert_eq!(raw.ask(&meta("disk")), option_reply::INVALID);
    assert_eq!(raw.ask(&ClientOption::StructuredReply), option_reply::ACK);
    assert_eq!(raw.ask(&meta("nothing")), option_reply::UNKNOWN);
    assert_eq!(raw.ask(&meta("disk")), option_reply::ACK);
    let (list, info) = (option::LIST, |name: &str| ClientOption::Info(name.into(), vec![]));
    raw.option(list, &[]);
    let names: Vec<_> = std::iter::from_fn(|| Some(raw.reply()))
        .take_while(|(kind, _)| *kind == option_reply::SERVER)
        .map(|(_, data)| String::from_utf8(data[4..].to_vec()).unwrap())
        .collect();
    assert_eq!(names, ["disk", "busy"]);
    // A busy export can be described, and not be opened.
    assert_eq!(raw.ask(&info("busy")), option_reply::ACK);
    assert_eq!(raw.ask(&info("nothing")), option_reply::UNKNOWN);
    assert_eq!(raw.ask(&ClientOption::Go("busy".into(), vec![])), option_reply::POLICY);
    assert_eq!(raw.ask(&ClientOption::Go("disk".into(), vec![])), option_reply::ACK);
    // Holes may be asked for: an answer in a chunk.
    raw.send(command::BLOCK_STATUS, 5, 0, 4096);
    let mut chunk = [0; proto::CHUNK];
    raw.0.read_exact(&mut chunk).unwrap();
    let chunk = proto::parse_chunk(&chunk).unwrap();
    assert_eq!((chunk.kind, chunk.cookie), (proto::chunk::BLOCK_STATUS, 5));
}

#[test]
fn simple_replies_and_requests_that_are_wrong() {
    let served = Served::new(40 << 20);
    let mut raw = Raw::ready(&served);
    raw.send(command::READ, 1, 0, 32 << 20);
    assert_eq!(raw.simple(), (1, 0));
    raw.0.read_exact(&mut vec![1; 32 << 20]).unwrap();
    for (number, (kind, offset, length, error)) in [
        (command::READ, 40 << 20, 1, Error::Inval),
        (command::READ, u64::MAX, u32::MAX, Error::Inval),
        (command::READ, 0, 0, Error::Inval),
        (command::READ, 0, (32 << 20) + 1, Error::Inval),
        (command::TRIM, 40 << 20, 1, Error::NoSpc),
        (command::FLUSH, 1, 0, Error::Inval),
        (command::BLOCK_STATUS, 0, 1, Error::Inval),
        (99, 0, 1, Error::Inval),
    ]
    .into_iter()
    .enumerate()
    {
        raw.send(kind, number as u64, offset, length);
        assert_eq!(raw.simple(), (number as u64, error as u32), "request {number}");
    }
    // The data of a refused write are skipped.
    raw.send(command::WRITE, 9, 40 << 20, 100_000);
    raw.0.write_all(&[7; 100_000]).unwrap();
    assert_eq!(raw.simple(), (9, Error::NoSpc as u32));
    raw.send(command::FLUSH, 10, 0, 0);
    assert_eq!(raw.simple(), (10, 0));
    // Bytes that are no request end the connection, and that only.
    raw.0.write_all(&[0; 28]).unwrap();
    raw.drain();
    assert!(served.client().read(0, 512).is_ok());
}

/// A request that waits lets later ones of its connection pass.
#[test]
fn waiting_requests_hold_nobody_up() {
    let served = Served::new(1 << 20);
    served.shared.hold.store(3, Ordering::SeqCst);
    let mut raw = Raw::ready(&served);
    raw.send(command::READ, 100, 0, 1);
    raw.send(command::READ, 101, 0, 1);
    for cookie in 0..3 {
        raw.send(command::READ, cookie, 1 + cookie, 1);
    }
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(raw.simple().0);
        raw.0.read_exact(&mut [0]).unwrap();
    }
    let held: Vec<_> = order.iter().filter(|cookie| **cookie >= 100).collect();
    assert_eq!(held.len(), 2, "{order:?}");
    assert!(order[..2].iter().all(|cookie| *cookie < 100), "{order:?}");
}

/// More requests than workers, which all wait: those that can go on do so later.
#[test]
fn more_waiting_requests_than_workers() {
    let served = Served::new(1 << 20);
    served.shared.hold.store(1, Ordering::SeqCst);
    let mut raw = Raw::ready(&served);
    let many = 4 * connection::WORKERS as u64;
    for cookie in 0..many {
        raw.send(command::READ, cookie, 0, 1);
    }
    assert!(served.client().read(1, 1).is_ok(), "another client");
    for _ in 0..many {
        raw.simple();
        raw.0.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_client_that_reads_nothing_harms_nobody_and_is_cut_off() {
    let mut served = Served::new(8 << 20);
    let stalled: Vec<_> = (0..3)
        .map(|_| {
            let mut raw = Raw::ready(&served);
            (0..64).for_each(|cookie| raw.send(command::READ, cookie, 0, 1 << 20));
            raw
        })
        .collect();
    let client = served.client();
    for round in 0..20 {
        assert_eq!(client.call(Operation::write(round, vec![1; 70_000], false)), Ok(()));
        assert_eq!(client.read(round, 70_000).map(|data| data.len()), Ok(70_000));
    }
    assert!(served.end(Duration::from_millis(100)), "answers that nobody takes were taken");
    stalled.into_iter().for_each(Raw::drain);
}

#[test]
fn what_was_asked_for_is_answered_at_the_end() {
    let mut served = Served::new(1 << 20);
    let mut raw = Raw::ready(&served);
    for cookie in 0..10 {
        raw.send(command::READ, cookie, 0, 1000);
    }
    let (idle, haggling) = (Raw::ready(&served), Raw::connect(&served));
    // The last is answered when all have been received.
    let mut answers: Vec<_> = Vec::new();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for _ in 0..10 {
                answers.push(raw.simple().0);
                raw.0.read_exact(&mut [0; 1000]).unwrap();
            }
            answers
        });
        assert_eq!(reader.join().unwrap().len(), 10);
    });
    assert!(!served.end(LIMIT), "clients that do nothing were waited for");
    idle.drain();
    haggling.drain();
    assert!(UnixStream::connect(&served.path).is_err());
}

#[test]
fn clients_that_vanish() {
    let served = Served::new(4 << 20);
    for round in 0..40u32 {
        let mut raw = if round % 4 == 0 { Raw::connect(&served) } else { Raw::ready(&served) };
        match round % 4 {
            1 => (0..32).for_each(|cookie| raw.send(command::READ, cookie, 0, 1 << 20)),
            2 => {
                raw.send(command::WRITE, 0, 0, 1 << 20);
                raw.0.write_all(&[1; 1000]).unwrap();
            }
            3 => raw.0.write_all(&[0x25, 0x60]).unwrap(),
            _ => {}
        }
    }
    assert!(served.client().read(0, 512).is_ok());
}

#[test]
fn too_many_clients() {
    let served = Served::new(4096);
    let clients: Vec<_> = (0..CLIENTS).map(|_| Raw::connect(&served)).collect();
    let mut late = UnixStream::connect(&served.path).unwrap();
    assert_eq!(late.read(&mut [0; 18]).unwrap_or(0), 0);
    assert_eq!(served.shared.said.lock().unwrap().len(), 1);
    drop(clients);
    // When those have gone, there is room; that they have gone is noticed a moment later.
    while Client::connect(&served.uri(), Limits::default()).is_err() {
        std::thread::yield_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Bytes of any kind, at any moment, do nothing but end a connection.
    #[test]
    fn nonsense(
        garbage in proptest::collection::vec(any::<u8>(), 0..400),
        ready in any::<bool>(),
        magic in any::<bool>(),
    ) {
        let served = Served::new(1 << 16);
        {
            let mut raw = if ready { Raw::ready(&served) } else { Raw::connect(&served) };
            let start = match (ready, magic) {
                (_, false) => Vec::new(),
                (true, true) => proto::REQUEST_MAGIC.to_be_bytes().to_vec(),
                (false, true) => proto::OPTION_MAGIC.to_be_bytes().to_vec(),
            };
            // The server may have hung up.
            let _ = raw.0.write_all(&start).and_then(|()| raw.0.write_all(&garbage));
            let _ = raw.0.shutdown(std::net::Shutdown::Write);
            raw.drain();
        }
        prop_assert!(served.client().read(0, 512).is_ok());
    }

    /// Random operations have the same results as on memory, whatever their sizes.
    #[test]
    fn as_in_memory(operations in proptest::collection::vec((0..6u8, 0..2_000_000u64, 1..1_000_000u32, any::<u8>()), 1..20)) {
        let size = 3_000_000;
        let served = Served::new(size);
        let client = served.client();
        let mut expected = vec![0u8; size];
        for (what, offset, length, byte) in operations {
            let range = offset as usize..offset as usize + length as usize;
            match what {
                0 => {
                    prop_assert_eq!(client.call(Operation::write(offset, vec![byte; length as usize], byte % 2 == 0)), Ok(()));
                    expected[range].fill(byte);
                }
                1 => {
                    prop_assert_eq!(client.call(Operation::plain(command::WRITE_ZEROES, 0, offset, length)), Ok(()));
                    expected[range].fill(0);
                }
                2 => {
                    prop_assert_eq!(client.call(Operation::plain(command::WRITE_ZEROES, command::NO_HOLE, offset, length)), Ok(()));
                    expected[range].fill(0);
                }
                3 => prop_assert_eq!(client.call(Operation::plain(command::FLUSH, 0, 0, 0)), Ok(())),
                4 => {
                    let extents = client.extents(offset, length).unwrap();
                    let mut at = offset as usize;
                    prop_assert!(!extents.is_empty());
                    for (count, state) in extents {
                        let piece = &expected[at..at + count as usize];
                        prop_assert!(state == 0 || piece.iter().all(|byte| *byte == 0));
                        at += count as usize;
                    }
                    prop_assert!(at <= range.end);
                }
                _ => prop_assert!(client.read(offset, length).as_deref() == Ok(&expected[range])),
            }
        }
    }
}
