// SPDX-License-Identifier: BSD-2-Clause

//! Files of proc(5) as they are where the kernel has a device mapper.

use std::ffi::{CStr, c_int};

use crate::numbers;
use crate::settings::Settings;

/// A file of proc(5) that is changed for the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The major numbers.
    Devices,
    /// The minor numbers of major 10.
    Misc,
    /// The mounts, with device numbers.
    Mounts,
}

impl Kind {
    /// The kind of a path, if it is one of them.
    pub fn of(path: &[u8]) -> Option<Kind> {
        match path.strip_prefix(b"/proc/")? {
            b"devices" => Some(Kind::Devices),
            b"misc" => Some(Kind::Misc),
            b"self/mountinfo" | b"thread-self/mountinfo" => Some(Kind::Mounts),
            _ => None,
        }
    }

    fn path(self) -> &'static CStr {
        match self {
            Kind::Devices => c"/proc/devices",
            Kind::Misc => c"/proc/misc",
            Kind::Mounts => c"/proc/self/mountinfo",
        }
    }

    fn change(self, settings: &Settings, text: &str) -> String {
        let others = text.lines().filter(|line| !line.ends_with(" device-mapper"));
        match self {
            Kind::Devices => {
                let mut lines: Vec<String> = others.map(String::from).collect();
                lines.push(format!("{:3} device-mapper", settings.major));
                lines.join("\n") + "\n"
            }
            Kind::Misc => {
                let others: String = others.flat_map(|line| [line, "\n"]).collect();
                format!("{others}236 device-mapper\n")
            }
            Kind::Mounts => text.lines().map(|line| mount(settings, line) + "\n").collect(),
        }
    }
}

/// A line of mountinfo, whose third word is a device number.
fn mount(settings: &Settings, line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(String::from).collect();
    if let Some(word) = words.get_mut(2)
        && let Some((major, minor)) = word.split_once(':')
        && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
    {
        let (major, minor) = numbers::seen(settings, major, minor);
        *word = format!("{major}:{minor}");
    }
    words.join(" ")
}

/// A descriptor from which the changed file can be read; -1 and errno where that fails.
pub fn open(settings: &Settings, kind: Kind, flags: c_int) -> c_int {
    let mut text = Vec::new();
    let mut part = [0u8; 4096];
    // SAFETY: system calls with strings and memory of our own; the descriptors are ours until the
    // last one is handed out.
    unsafe {
        let from = libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            kind.path().as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        ) as c_int;
        if from < 0 {
            return -1;
        }
        loop {
            let got = libc::read(from, part.as_mut_ptr().cast(), part.len());
            let Some(bytes) = usize::try_from(got).ok().and_then(|got| part.get(..got)) else {
                libc::close(from);
                return -1;
            };
            if bytes.is_empty() {
                break;
            }
            text.extend_from_slice(bytes);
        }
        libc::close(from);
        let changed = kind.change(settings, &String::from_utf8_lossy(&text));
        let close = if flags & libc::O_CLOEXEC != 0 { libc::MFD_CLOEXEC } else { 0 };
        let to = libc::memfd_create(kind.path().as_ptr(), close);
        let mut rest = changed.as_bytes();
        while to >= 0 && !rest.is_empty() {
            let put = libc::write(to, rest.as_ptr().cast(), rest.len());
            let Some(after) = usize::try_from(put).ok().and_then(|put| rest.get(put..)) else {
                libc::close(to);
                return -1;
            };
            rest = after;
        }
        if to >= 0 {
            libc::lseek(to, 0, libc::SEEK_SET);
        }
        to
    }
}
