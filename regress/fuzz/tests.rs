// SPDX-License-Identifier: BSD-2-Clause

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use crate::TARGETS;

/// Written while the driver is loaded in the hosted kernel: all of the process's dm-core makes its spin mutexes there then.
static DRIVER: RwLock<()> = RwLock::new(());

/// Mutations of the corpus: as many as take seconds.
const QUICK: usize = 8000;
const SLOW: usize = 1600;
/// The number of mutations where each is a whole game.
const GAMES: usize = 200;

/// Marsaglia's xorshift: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize
    }

    fn mutate(&mut self, data: &mut Vec<u8>) {
        for _ in 0..=self.next() % 4 {
            let at = self.next() % (data.len() + 1);
            match self.next() % 5 {
                0 => data.insert(at, self.next() as u8),
                1 if at < data.len() => drop(data.remove(at)),
                2 if at < data.len() => data[at] ^= 1 << (self.next() % 8),
                3 => data.truncate(at),
                _ => {
                    let from = self.next() % (data.len() + 1);
                    let piece = data[from..(from + 20).min(data.len())].to_vec();
                    data.splice(at..at, piece);
                }
            }
        }
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut all: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            (path.display().to_string(), std::fs::read(&path).unwrap())
        })
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{} is empty", folder.display());
    all
}

/// Runs a target of the hosted kernel's, alone.
fn run_hosted(name: &str, mutations: usize) {
    let _alone = DRIVER.write().unwrap_or_else(PoisonError::into_inner);
    run_all(name, mutations);
}

/// Runs a target that loads no driver.
fn run(name: &str, mutations: usize) {
    let _beside = DRIVER.read().unwrap_or_else(PoisonError::into_inner);
    run_all(name, mutations);
}

fn run_all(name: &str, mutations: usize) {
    let target = TARGETS.iter().find(|(n, _)| *n == name).unwrap().1;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let corpus = corpus(name);
    let rounds = mutations.div_ceil(corpus.len());
    for (path, data) in corpus {
        eprintln!("{path}");
        target(&data);
        for _ in 0..rounds {
            let mut data = data.clone();
            random.mutate(&mut data);
            target(&data);
        }
    }
}

#[test]
fn table() {
    run("table", QUICK);
}

#[test]
fn dictionaries() {
    run("dictionaries", SLOW);
}

#[test]
fn proplib() {
    run("proplib", QUICK);
}

#[test]
fn ioctl() {
    run_hosted("ioctl", SLOW);
}

#[test]
fn requests() {
    run_hosted("requests", SLOW);
}

#[test]
fn sequences() {
    run_hosted("sequences", GAMES);
}

#[test]
fn stores() {
    run("stores", SLOW);
}

#[test]
fn luks() {
    run("luks", QUICK);
}
