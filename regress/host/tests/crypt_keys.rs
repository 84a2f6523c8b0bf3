// SPDX-License-Identifier: BSD-2-Clause

//! Keys do not stay behind: every block of memory that is freed in this process is searched for them, and in the end
//! all memory that is left. A report names the place where the memory was freed.
//!
//! Not looked at is what NetBSD's proplib and copyin(9) free, which wipe nothing, as the hosted ones do
//! not: dm.4 says so. Nor are stacks, on which RustCrypto leaves round keys.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::Bench;
use dm_host::Config;
use dm_host::frugal::Watched;

/// Keys as they lie in memory, but for [`MASK`], so that they are not to be found here.
static NEEDLES: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static FOUND: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// A bit for the first two bytes of each.
static BEGINNINGS: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];
static SEARCHING: AtomicBool = AtomicBool::new(false);
const MASK: u8 = 0x5c;

thread_local! {
    /// The allocator itself is at work.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// `true` if one of the keys is in some bytes.
fn has_key(bytes: &[u8], needles: &[Vec<u8>]) -> bool {
    place_of_key(bytes, needles).is_some()
}

/// The place of the first key in some bytes, and its number.
fn place_of_key(bytes: &[u8], needles: &[Vec<u8>]) -> Option<(usize, usize)> {
    let is = |at: usize, needle: &Vec<u8>| {
        let window = &bytes[at..];
        needle.len() <= window.len()
            && needle.iter().zip(window).all(|(masked, byte)| masked ^ MASK == *byte)
    };
    let begins = |two: &[u8]| {
        let two = usize::from(two[0]) << 8 | usize::from(two[1]);
        BEGINNINGS[two / 64].load(Ordering::Relaxed) >> (two % 64) & 1 != 0
    };
    let places = bytes.windows(2).enumerate().filter(|(_, two)| begins(two));
    let mut found = places.filter_map(|(at, _)| {
        needles.iter().position(|needle| is(at, needle)).map(|needle| (at, needle))
    });
    found.next()
}

struct Searching;

// SAFETY: the system's allocator; blocks are the caller's until they are freed.
unsafe impl GlobalAlloc for Searching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Watched::look();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if SEARCHING.load(Ordering::Relaxed) && !INSIDE.replace(true) {
            // SAFETY: the block is the caller's, and was written to as a whole when it was allocated.
            let bytes = unsafe { std::slice::from_raw_parts(at, layout.size()) };
            let found = has_key(bytes, &NEEDLES.lock().unwrap());
            if found {
                let place = Backtrace::force_capture().to_string();
                // NetBSD's own.
                if !place.contains("dm_host::proplib") && !place.contains("dm_host::file") {
                    FOUND.lock().unwrap().push(format!("{} bytes, freed in\n{place}", bytes.len()));
                }
            }
            INSIDE.set(false);
        }
        // SAFETY: as above; what NetBSD would leave is wiped, so that it is not found in the end.
        unsafe {
            at.write_bytes(0, layout.size());
            // Or the compiler leaves the wiping out: nobody reads the block any more.
            System.dealloc(std::hint::black_box(at), layout);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Searching = Searching;

/// A key of so many bytes, which is nowhere in the program's text, and its digits. Both are searched for from
/// now on, in pieces as short as a half of it may be.
fn key(bytes: usize, seed: u64) -> (Vec<u8>, String) {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as u8
    };
    let key: Vec<u8> = (0..bytes).map(|_| next()).collect();
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let masked = |part: &[u8]| {
        let two = usize::from(part[0]) << 8 | usize::from(part[1]);
        BEGINNINGS[two / 64].fetch_or(1 << (two % 64), Ordering::Relaxed);
        part.iter().map(|byte| byte ^ MASK).collect::<Vec<u8>>()
    };
    let mut needles = NEEDLES.lock().unwrap();
    needles.extend(key.chunks(16).map(masked));
    needles.extend(digits.as_bytes().chunks(32).map(masked));
    (key, digits)
}

/// Sends a request, and leaves no copy of it in the test's memory.
fn send(bench: &Bench, command: &str, rest: &str) -> Result<(), dm_host::Errno> {
    INSIDE.set(true);
    let mut text = format!(
        "<plist version=\"1.0\"><dict><key>command</key><string>{command}</string>\
         <key>name</key><string>d</string>{rest}</dict></plist>"
    );
    INSIDE.set(false);
    let reply = bench.control.plist_ioctl(&text);
    INSIDE.set(true);
    wipe(&mut text);
    let reply = reply.map(|mut reply| wipe(&mut reply));
    INSIDE.set(false);
    reply
}

fn wipe(text: &mut String) {
    let mut bytes = std::mem::take(text).into_bytes();
    bytes.fill(0);
    std::hint::black_box(&bytes);
}

/// The parts of the process's memory that can be written to, but for stacks.
fn memory() -> Vec<(usize, usize, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let here = &raw const maps as usize;
    // A thread's stack lies behind a page that nobody may touch.
    let mut guard = 0;
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let (from, to) =
            (usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?);
        let rights = words.next()?;
        let is_stack = (from..to).contains(&here) || line.contains("[stack]") || guard == from;
        guard = if rights.starts_with("---") && to - from == 4096 { to } else { 0 };
        (rights.starts_with("rw") && !is_stack).then(|| (from, to, line.to_string()))
    };
    maps.lines().filter_map(parse).collect()
}

/// A line of a table.
fn lines(cipher: &str, digits: &str, iv: &str) -> String {
    format!(
        "<key>cmd_data</key><array><dict><key>start</key><integer>0</integer>\
         <key>length</key><integer>96</integer><key>type</key><string>crypt</string>\
         <key>params</key><string>{cipher} {digits} {iv} /dev/wd0 0</string></dict></array>"
    )
}

/// There is one test, since it searches the whole process.
#[test]
fn keys_do_not_stay_behind() {
    let bench = Bench::with(Config::test());
    let _disk = bench.disk("wd0", 4000);
    bench.create("d");
    let mut kept = Vec::new();
    // The first backtrace makes the standard library's cache for them, a static with room that is not
    // written to: whatever lay on the stack is copied there, and with keys about a piece of one may.
    drop(Backtrace::force_capture().to_string());
    SEARCHING.store(true, Ordering::SeqCst);

    // The search finds what is there to be found.
    INSIDE.set(true);
    let (first, _) = key(32, 1);
    let copy = first.clone();
    INSIDE.set(false);
    drop(copy);
    assert_eq!(FOUND.lock().unwrap().len(), 1, "the search finds a key that is freed");
    FOUND.lock().unwrap().clear();

    let flags = |flags: u64| format!("<key>flags</key><integer>{flags}</integer>");
    for (seed, (cipher, bytes)) in
        (2..).zip([("aes-xts-plain64", 64), ("aes-cbc-essiv:sha256", 32), ("aes:2-cbc-plain", 64)])
    {
        INSIDE.set(true);
        let (raw, digits) = key(bytes, seed);
        let (_, other) = key(bytes, seed + 100);
        let text = lines(cipher, &digits, "0");
        let wrong = lines(cipher, &digits, "x");
        let misplaced = lines(&digits, cipher, "0");
        let set = |digits: &str| format!("<key>message</key><string>key set {digits}</string>");
        let (same, others) = (set(&digits), set(&other));
        INSIDE.set(false);
        // Loaded, refused, in parts, replaced while inactive, cleared.
        send(&bench, "reload", &text).unwrap();
        send(&bench, "reload", &wrong).unwrap_err();
        send(&bench, "reload", &misplaced).unwrap_err();
        send(&bench, "reload", &text).unwrap();
        send(&bench, "clear", "").unwrap();
        INSIDE.set(true);
        let more = format!("{text}{}", flags(1 << 30));
        INSIDE.set(false);
        send(&bench, "reload", &more).unwrap();
        send(&bench, "clear", "").unwrap();
        send(&bench, "reload", &text).unwrap();
        send(&bench, "resume", "").unwrap();
        // Shown.
        send(&bench, "table", &flags(1 << 4)).unwrap();
        // Wiped and set.
        send(&bench, "suspend", "").unwrap();
        send(&bench, "message", &others).unwrap();
        send(&bench, "message", "<key>message</key><string>key wipe</string>").unwrap();
        send(&bench, "message", &same).unwrap();
        send(&bench, "resume", "").unwrap();
        kept.push((raw, digits, other, text, wrong, misplaced, same, others, more));
    }
    send(&bench, "remove", "").unwrap();
    let console = bench.machine.console().join("\n");
    assert!(!has_key(console.as_bytes(), &NEEDLES.lock().unwrap()), "the console has a key");
    bench.end();
    let found = std::mem::take(&mut *FOUND.lock().unwrap());
    assert!(found.is_empty(), "{} times a key was freed, first\n{}", found.len(), found[0]);

    // The test drops its own keys; then there must be none anywhere.
    INSIDE.set(true);
    drop((kept, first));
    let needles = NEEDLES.lock().unwrap().clone();
    let mut searched = 0;
    for (from, to, name) in memory() {
        // SAFETY: a part of this process's memory that can be read; nobody else is at work here.
        let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, to - from) };
        searched += bytes.len();
        let place = place_of_key(bytes, &needles);
        assert_eq!(place, None, "a key, and where in {name} it is left");
    }
    assert!(searched > 1 << 20, "{searched} bytes were searched");
    SEARCHING.store(false, Ordering::SeqCst);
    INSIDE.set(false);
}
