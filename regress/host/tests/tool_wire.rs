// SPDX-License-Identifier: BSD-2-Clause

//! The frames of the control socket: as written down, and with a server at the other end.

mod tool;

use std::io::{Cursor, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use dm_host::Errno;
use dm_host::wire::{Kind, MAX_REPLY, MAX_REQUEST, Reply, Request, WireError};

fn header(magic: &[u8; 4], version: u16, kind: u16, word: u32, length: u32) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend(version.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(word.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

#[test]
fn frames_are_as_written_down() {
    let mut bytes = Vec::new();
    let request = Request { kind: Kind::Sysctl, body: b"hw.dm".to_vec() };
    request.write(&mut bytes).unwrap();
    let mut expected = header(b"dmhQ", 1, 2, 0, 5);
    expected.extend(b"hw.dm");
    assert_eq!(bytes, expected);
    assert_eq!(Request::read(&mut Cursor::new(&bytes)).unwrap(), request);

    let mut bytes = Vec::new();
    let reply = Reply { errno: 22, body: b"why".to_vec() };
    reply.write(&mut bytes).unwrap();
    let mut expected = header(b"dmhR", 1, 0, 22, 3);
    expected.extend(b"why");
    assert_eq!(bytes, expected);
    assert_eq!(Reply::read(&mut Cursor::new(&bytes)).unwrap(), reply);
}

#[test]
fn what_is_malformed_is_told() {
    let large = MAX_REQUEST as u32 + 1;
    for bytes in [
        header(b"dmhR", 1, 1, 0, 0),
        header(b"GET ", 1, 1, 0, 0),
        header(b"dmhQ", 2, 1, 0, 0),
        header(b"dmhQ", 1, 0, 0, 0),
        header(b"dmhQ", 1, 7, 0, 0),
        header(b"dmhQ", 1, 1, 1, 0),
        header(b"dmhQ", 1, 1, 0, large),
        header(b"dmhQ", 1, 1, 0, u32::MAX),
    ] {
        let read = Request::read(&mut Cursor::new(&bytes));
        assert!(matches!(read, Err(WireError::Malformed(_))), "{bytes:?}: {read:?}");
    }
    let reply = header(b"dmhR", 1, 0, 0, MAX_REPLY as u32 + 1);
    assert!(matches!(Reply::read(&mut Cursor::new(&reply)), Err(WireError::Malformed(_))));
    // Cut anywhere, a frame is a broken connection; nothing at all is its end.
    let mut whole = header(b"dmhQ", 1, 1, 0, 4);
    whole.extend(b"body");
    for cut in 1..whole.len() {
        let read = Request::read(&mut Cursor::new(&whole[..cut]));
        assert!(matches!(read, Err(WireError::Io(_))), "{cut}: {read:?}");
    }
    assert!(matches!(Request::read(&mut Cursor::new(&[][..])), Err(WireError::Closed)));
    let large = Request { kind: Kind::Ioctl, body: vec![0; MAX_REQUEST + 1] };
    assert!(matches!(large.write(&mut Vec::new()), Err(WireError::Malformed(_))));
}

#[test]
fn a_server_answers_rubbish_and_goes_on() {
    let server = tool::Server::start();
    let connect = || UnixStream::connect(server.folder.path("control")).unwrap();
    for rubbish in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        header(b"dmhQ", 9, 1, 0, 0),
        header(b"dmhQ", 1, 77, 0, 0),
        header(b"dmhQ", 1, 1, 0, u32::MAX),
    ] {
        let mut stream = connect();
        stream.write_all(&rubbish).unwrap();
        let reply = Reply::read(&mut stream).unwrap();
        assert_eq!(reply.errno, Errno::EINVAL.0);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the connection is still open");
    }
    // A frame that is cut off gets no answer, and does no harm.
    let mut stream = connect();
    stream.write_all(&header(b"dmhQ", 1, 1, 0, 100)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    // The kernel refuses bodies that are no property lists; the connection stays.
    let mut stream = connect();
    for body in [&b""[..], b"\xff\xfe", b"<plist>", b"<dict/>"] {
        let request = Request { kind: Kind::Ioctl, body: body.to_vec() };
        request.write(&mut stream).unwrap();
        assert_ne!(Reply::read(&mut stream).unwrap().errno, 0, "{body:?}");
    }
    // Requests that are sent together are answered in their order.
    let ask = |body: &[u8]| Request { kind: Kind::Sysctl, body: body.to_vec() };
    for body in [&b"hw.dm.legacy_errors"[..], b"no.such.thing"] {
        ask(body).write(&mut stream).unwrap();
    }
    assert_eq!(Reply::read(&mut stream).unwrap(), Reply { errno: 0, body: b"0".to_vec() });
    assert_eq!(Reply::read(&mut stream).unwrap().errno, Errno::ENOENT.0);
    server.end();
}
