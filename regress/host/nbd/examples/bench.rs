// SPDX-License-Identifier: BSD-2-Clause

//! Compares two NBD servers that serve the same image: `bench URI1 PID1 URI2 PID2 [ROW]`.
//!
//! Each row is run on both in turn, several times. What is printed is the middle of the ratios of
//! the neighbours, so that what else the machine does meanwhile hits both: of the time, and of
//! what the server's process took of the processors.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use dm_nbd::Uri;
use dm_nbd::proto::{self, ClientOption, Info, RawRequest, chunk, command, option_reply};
use dm_nbd::uri::Place;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The number of runs of each row on each server.
const ROUNDS: usize = 9;

/// A row of the table: its name, the command, bytes of a request, requests in flight on a connection, connections,
/// and bytes altogether.
struct Row(&'static str, u16, u32, usize, usize, u64);

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
const ROWS: &[Row] = &[
    Row("read   4 KiB,  1 at a time", command::READ, 4 * KIB, 1, 1, 64 << 20),
    Row("read   4 KiB, 16 at a time", command::READ, 4 * KIB, 16, 1, 128 << 20),
    Row("read  64 KiB,  1 at a time", command::READ, 64 * KIB, 1, 1, 512 << 20),
    Row("read  64 KiB, 16 at a time", command::READ, 64 * KIB, 16, 1, 512 << 20),
    Row("read  64 KiB, 4 connections", command::READ, 64 * KIB, 4, 4, 512 << 20),
    Row("read   1 MiB,  1 at a time", command::READ, MIB, 1, 1, 512 << 20),
    Row("read   1 MiB,  4 at a time", command::READ, MIB, 4, 1, 512 << 20),
    Row("write  4 KiB,  1 at a time", command::WRITE, 4 * KIB, 1, 1, 64 << 20),
    Row("write  4 KiB, 16 at a time", command::WRITE, 4 * KIB, 16, 1, 128 << 20),
    Row("write 64 KiB, 16 at a time", command::WRITE, 64 * KIB, 16, 1, 512 << 20),
    Row("write  1 MiB,  4 at a time", command::WRITE, MIB, 4, 1, 512 << 20),
];

trait Stream: Read + Write + Send {}
impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// A client that costs as little as it can.
struct Client {
    stream: Box<dyn Stream>,
    size: u64,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(uri: &Uri) -> Result<Client> {
        let stream: Box<dyn Stream> = match &uri.place {
            Place::Unix(path) => Box::new(UnixStream::connect(path)?),
            Place::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port))?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        let mut client = Client { stream, size: 0, buffer: Vec::new() };
        client.take(18)?;
        client.stream.write_all(&3u32.to_be_bytes())?;
        client.option(&ClientOption::StructuredReply)?;
        client.option(&ClientOption::Go(uri.export.clone(), Vec::new()))?;
        Ok(client)
    }

    fn take(&mut self, count: usize) -> Result<&[u8]> {
        if self.buffer.len() < count {
            self.buffer.resize(count, 0);
        }
        let to = self.buffer.get_mut(..count).ok_or("a buffer")?;
        self.stream.read_exact(to)?;
        Ok(to)
    }

    fn option(&mut self, option: &ClientOption) -> Result<()> {
        let (number, data) = option.encode();
        let mut bytes = proto::OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend(number.to_be_bytes());
        bytes.extend(u32::try_from(data.len())?.to_be_bytes());
        bytes.extend(data);
        self.stream.write_all(&bytes)?;
        loop {
            let header = self.take(proto::OPTION_REPLY)?;
            let header = header.first_chunk().and_then(proto::parse_option_reply);
            let (_, kind, length) = header.ok_or("a reply")?;
            let data = self.take(length as usize)?.to_vec();
            match (kind, Info::parse(&data)) {
                (option_reply::ACK, _) => return Ok(()),
                (option_reply::INFO, Some(Info::Export(size, _))) => self.size = size,
                (option_reply::INFO, _) => {}
                _ => return Err("the server refuses".into()),
            }
        }
    }

    fn send(&mut self, kind: u16, offset: u64, length: u32, data: &[u8]) -> Result<()> {
        let request = RawRequest { flags: 0, kind, cookie: offset, offset, length };
        self.stream.write_all(&request.encode())?;
        Ok(self.stream.write_all(data)?)
    }

    /// Receives until a request has ended.
    fn receive(&mut self) -> Result<()> {
        loop {
            let head = self.take(4)?;
            match u32::from_be_bytes(*head.first_chunk().ok_or("a reply")?) {
                proto::SIMPLE_MAGIC => {
                    let rest = self.take(proto::SIMPLE - 4)?;
                    return if rest.starts_with(&[0; 4]) { Ok(()) } else { Err("an error".into()) };
                }
                proto::CHUNK_MAGIC => {
                    let rest = self.take(proto::CHUNK - 4)?;
                    let mut header = proto::CHUNK_MAGIC.to_be_bytes().to_vec();
                    header.extend(rest);
                    let header = header.first_chunk().and_then(proto::parse_chunk);
                    let header = header.ok_or("a chunk")?;
                    self.take(header.length as usize)?;
                    if chunk::is_error(header.kind) {
                        return Err("an error".into());
                    }
                    if header.flags & chunk::DONE != 0 {
                        return Ok(());
                    }
                }
                _ => return Err("no reply".into()),
            }
        }
    }

    /// Reads or writes the export from its beginning to its end, over and over, `bytes` in all.
    fn run(&mut self, row: &Row, bytes: u64) -> Result<()> {
        let Row(_, kind, length, depth, ..) = *row;
        let data = vec![0x5a; if kind == command::WRITE { length as usize } else { 0 }];
        let count = bytes / u64::from(length);
        let places = self.size / u64::from(length);
        let mut sent = 0;
        for _ in 0..count {
            while sent < count && sent < depth as u64 {
                self.send(kind, sent % places * u64::from(length), length, &data)?;
                sent += 1;
            }
            self.receive()?;
            if sent < count {
                self.send(kind, sent % places * u64::from(length), length, &data)?;
                sent += 1;
            }
        }
        Ok(())
    }
}

/// The processor time that a process has used.
fn cpu(pid: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(')').next().ok_or("a status")?;
    let words: Vec<_> = after.split_whitespace().collect();
    let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    // utime and stime, in hundredths of a second.
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}

/// Runs a row once. The answer is the seconds, and the server's seconds of processor time.
fn run(row: &Row, uri: &Uri, pid: &str) -> Result<(f64, f64)> {
    let Row(_, _, _, _, connections, bytes) = *row;
    let mut clients = (0..connections).map(|_| Client::connect(uri)).collect::<Result<Vec<_>>>()?;
    let (began, before) = (Instant::now(), cpu(pid)?);
    thread::scope(|scope| {
        let runs: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                let each = bytes / connections as u64;
                scope.spawn(move || client.run(row, each).map_err(|error| error.to_string()))
            })
            .collect();
        runs.into_iter().try_for_each(|run| run.join().map_err(|_| "a panic".to_string())?)
    })?;
    Ok((began.elapsed().as_secs_f64(), cpu(pid)?.saturating_sub(before).as_secs_f64()))
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [first, first_pid, second, second_pid, rest @ ..] = arguments.as_slice() else {
        return Err("bench URI1 PID1 URI2 PID2 [ROW]".into());
    };
    let (one, two) = (Uri::parse(first)?, Uri::parse(second)?);
    println!("{:30} {:>10} {:>10} {:>10}", "", "MiB/s", "time", "CPU");
    let mut worst = 0f64;
    for row in
        ROWS.iter().filter(|row| rest.first().is_none_or(|only| row.0.contains(only.as_str())))
    {
        let (mut times, mut cpus, mut own) = (Vec::new(), (0.0, 0.0), Vec::new());
        // The first round warms up.
        for round in 0..=ROUNDS {
            let (time, used) = run(row, &one, first_pid)?;
            let (other_time, other_used) = run(row, &two, second_pid)?;
            if round > 0 {
                times.push(time / other_time);
                own.push(row.5 as f64 / f64::from(MIB) / time);
                // Ticks are coarse: only their sum says something.
                cpus = (cpus.0 + used, cpus.1 + other_used);
            }
        }
        let (time, cpu) = (middle(times), cpus.0 / cpus.1);
        worst = worst.max(time).max(cpu);
        println!("{:30} {:10.0} {time:10.2} {cpu:10.2}", row.0, middle(own));
    }
    println!("time, CPU: of the first server, in those of the second; the worst: {worst:.2}");
    Ok(())
}
