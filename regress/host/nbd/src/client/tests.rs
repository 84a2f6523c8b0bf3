// SPDX-License-Identifier: BSD-2-Clause

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use tempfile::TempPath;

use super::*;
use crate::proto::{self, ClientOption, Info, RawRequest, option, option_reply};
use crate::server::tests::Served;
use crate::uri::Place;

fn uri(path: &std::path::Path) -> Uri {
    Uri { place: Place::Unix(path.into()), export: "disk".into() }
}

const SHORT: Limits =
    Limits { connect: Duration::from_secs(20), answer: Duration::from_millis(300) };

/// A server that haggles as it should, and then does as the test says.
struct Fake {
    path: TempPath,
    listener: UnixListener,
}

impl Fake {
    fn new() -> Fake {
        let made = tempfile::Builder::new().make(|path| UnixListener::bind(path));
        let (listener, path) = made.unwrap().into_parts();
        Fake { listener, path }
    }

    /// Accepts a client, and haggles with simple replies.
    fn accept(&self, size: u64) -> UnixStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut hello = proto::MAGIC.to_be_bytes().to_vec();
        hello.extend(proto::OPTION_MAGIC.to_be_bytes());
        hello.extend(3u16.to_be_bytes());
        stream.write_all(&hello).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        loop {
            let mut header = [0; proto::OPTION];
            stream.read_exact(&mut header).unwrap();
            let (number, length) = proto::parse_option_header(&header).unwrap();
            let mut data = vec![0; length as usize];
            stream.read_exact(&mut data).unwrap();
            if number != option::GO {
                let reply = proto::option_reply(number, option_reply::UNSUPPORTED, b"");
                stream.write_all(&reply).unwrap();
                continue;
            }
            assert!(matches!(ClientOption::parse(number, &data), ClientOption::Go(..)));
            let info = Info::Export(size, can::HAS_FLAGS | can::FLUSH).encode();
            let mut reply = proto::option_reply(number, option_reply::INFO, &info);
            reply.extend(proto::option_reply(number, option_reply::ACK, b""));
            stream.write_all(&reply).unwrap();
            return stream;
        }
    }

    fn request(stream: &mut UnixStream) -> RawRequest {
        let mut bytes = [0; proto::REQUEST];
        stream.read_exact(&mut bytes).unwrap();
        let request = RawRequest::parse(&bytes).unwrap();
        stream.read_exact(&mut vec![0; request.payload() as usize]).unwrap();
        request
    }

    fn answer(stream: &mut UnixStream, data: &[u8]) {
        let request = Fake::request(stream);
        stream.write_all(&proto::simple(request.cookie, None)).unwrap();
        stream.write_all(data).unwrap();
    }
}

#[test]
fn a_lost_connection_is_made_again_and_what_was_asked_is_asked_again() {
    let fake = Fake::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut first = fake.accept(4096);
            Fake::answer(&mut first, b"once");
            // Gone within an answer.
            let request = Fake::request(&mut first);
            first.write_all(&proto::simple(request.cookie, None)).unwrap();
            first.write_all(b"tw").unwrap();
            drop(first);
            let mut second = fake.accept(4096);
            Fake::answer(&mut second, b"thrice");
        });
        let client = Client::connect(&uri(&fake.path), Limits::default()).unwrap();
        assert_eq!(client.read(0, 4), Ok(b"once".to_vec()));
        assert_eq!(client.read(0, 6), Ok(b"thrice".to_vec()));
    });
}

#[test]
fn a_connection_that_is_lost_twice_is_an_error() {
    let fake = Fake::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let mut stream = fake.accept(4096);
                Fake::request(&mut stream);
            }
            Fake::answer(&mut fake.accept(4096), b"back");
        });
        let client = Client::connect(&uri(&fake.path), Limits::default()).unwrap();
        assert_eq!(client.read(0, 4), Err(Error::Io));
        // The next one may try again.
        assert_eq!(client.read(0, 4), Ok(b"back".to_vec()));
    });
}

#[test]
fn a_server_that_does_not_answer() {
    let fake = Fake::new();
    std::thread::scope(|scope| {
        // It is tried twice. Whether it is asked in time depends on how soon the client's threads run.
        let server = scope.spawn(|| [fake.accept(4096), fake.accept(4096)]);
        let client = Client::connect(&uri(&fake.path), SHORT).unwrap();
        assert_eq!(client.read(0, 4), Err(Error::Io));
        drop((client, server.join().unwrap()));
    });
}

#[test]
fn a_server_that_is_gone() {
    let fake = Fake::new();
    let client = std::thread::scope(|scope| {
        scope.spawn(|| drop(fake.accept(4096)));
        Client::connect(&uri(&fake.path), SHORT).unwrap()
    });
    let gone = uri(&fake.path);
    drop(fake);
    assert_eq!(client.read(0, 4), Err(Error::Io));
    assert_eq!(client.call(Operation::write(0, vec![1; 512], false)), Err(Error::Io));
    assert!(Client::connect(&gone, SHORT).is_err());
}

#[test]
fn answered_writes_that_may_be_lost_are_told_by_the_next_flush() {
    let fake = Fake::new();
    let flush = || Operation::plain(command::FLUSH, 0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut first = fake.accept(4096);
            // A write, a flush, a write.
            (0..3).for_each(|_| Fake::answer(&mut first, b""));
            drop(first);
            let mut second = fake.accept(4096);
            (0..2).for_each(|_| Fake::answer(&mut second, b""));
        });
        let client = Client::connect(&uri(&fake.path), Limits::default()).unwrap();
        let write = || client.call(Operation::write(0, vec![1; 512], false));
        assert_eq!((write(), client.call(flush()), write()), (Ok(()), Ok(()), Ok(())));
        assert_eq!(client.call(flush()), Err(Error::Io));
        assert_eq!(client.call(flush()), Ok(()));
    });
}

#[test]
fn an_export_that_is_another_one_is_not_taken() {
    let fake = Fake::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(fake.accept(4096));
            drop(fake.accept(8192));
        });
        let client = Client::connect(&uri(&fake.path), Limits::default()).unwrap();
        assert_eq!(client.read(0, 4), Err(Error::Io));
    });
}

#[test]
fn servers_that_are_none() {
    for hello in
        [&b""[..], b"NBDMAGIC", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"NBDMAGICIHAVEOPT\0\x03!"]
    {
        let fake = Fake::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = fake.listener.accept().unwrap();
                stream.write_all(hello).unwrap();
            });
            assert!(Client::connect(&uri(&fake.path), SHORT).is_err());
        });
    }
}

#[test]
fn refusals_are_told() {
    let served = Served::new(4096);
    let connect = |export: &str| {
        let uri = Uri { export: export.into(), ..served.uri() };
        Client::connect(&uri, Limits::default()).err().map(|error| error.0)
    };
    assert_eq!(connect("nothing").unwrap(), "there is no export `nothing` (no such disk)");
    assert_eq!(connect("busy").unwrap(), "the server refuses the export `busy` (it is busy)");
    assert_eq!(connect(""), None);
}

/// Many at once, from several threads.
#[test]
fn many_requests_at_once() {
    let served = Served::new(4 << 20);
    let client = served.client();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..50u64 {
                    let offset = u64::from(thread) * (1 << 20) + round * 1000;
                    let data = vec![thread * 60 + round as u8; 1000];
                    client.call(Operation::write(offset, data.clone(), false)).unwrap();
                    assert_eq!(client.read(offset, 1000), Ok(data));
                }
            });
        }
    });
}
