// SPDX-License-Identifier: BSD-2-Clause

//! `cargo xtask simulate`: plays games until the time is over or one is lost.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dm_core::testing::sim::{Totals, games, planted, play, shorten};

const USAGE: &str = "usage: cargo xtask simulate [--seconds N | --games N] [--target NAME] \
                     [--seed N] [--steps N] [--story LINES]";

struct Options {
    /// The time to play for, in seconds; without it a minute, or one game if a seed is given.
    seconds: Option<u64>,
    /// The most games of each kind.
    games: Option<u64>,
    target: Option<String>,
    seed: Option<u64>,
    steps: u64,
    /// The most lines of a lost game's story, from its end.
    story: usize,
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options =
        Options { seconds: None, games: None, target: None, seed: None, steps: 200, story: 300 };
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} wants a value\n{USAGE}"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{value} is not a number"));
        match arg.as_str() {
            "--seconds" => options.seconds = Some(number()?),
            "--games" => options.games = Some(number()?),
            "--story" => options.story = number()? as usize,
            "--target" => options.target = Some(value),
            "--seed" => options.seed = Some(number()?),
            "--steps" => options.steps = number()?,
            _ => return Err(format!("no such option: {arg}\n{USAGE}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let options = options(std::env::args().skip(1))?;
    let known = || games::GAMES.iter().chain(planted::RIGHT);
    let mut chosen: Vec<_> = known().copied().collect();
    if let Some(target) = &options.target {
        chosen.retain(|(name, _)| name == target);
        if chosen.is_empty() {
            let names: Vec<&str> = known().map(|(name, _)| *name).collect();
            return Err(format!("no game is called {target}: there are {}", names.join(", ")));
        }
    }
    // The panic is reported as a lost game.
    std::panic::set_hook(Box::new(|_| {}));
    let start = Instant::now();
    // A seed alone asks for one game.
    let one = options.seed.is_some() && options.seconds.is_none();
    let most = options.games.unwrap_or(if one { 1 } else { u64::MAX });
    let time = Duration::from_secs(options.seconds.unwrap_or(60));
    // Without a seed every run plays other games.
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = now().map_or(0, |since| since.as_micros() as u64);
    let first = options.seed.unwrap_or(fresh);
    let mut all: Vec<Totals> = chosen.iter().map(|_| Totals::default()).collect();
    'playing: for seed in first.. {
        for ((name, make), totals) in chosen.iter().zip(&mut all) {
            match play(*make, seed, options.steps) {
                Ok(game) => totals.add(&game),
                Err(lost) => {
                    let mut lost = shorten(*make, *lost, options.steps);
                    let (steps, all) = (lost.steps, lost.story.len());
                    lost.story.drain(..all.saturating_sub(options.story));
                    return Err(format!(
                        "{lost}\n\nA game of {name} is lost; these are the last {} of {all} lines \
                         of its story. To play it again:\n  cargo xtask simulate --target {name} \
                         --seed {seed} --steps {steps}\nTo keep it as a test: a line \"{seed}\" in \
                         sys/dev/dm/testing/sim/seeds/{name}.",
                        lost.story.len()
                    ));
                }
            }
        }
        let played = seed.wrapping_sub(first) + 1;
        if played >= most || options.games.is_none() && start.elapsed() >= time {
            break 'playing;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:<12} {:>9} {:>11} {:>11} {:>9} {:>9}",
        "", "games", "I/O", "disks' I/O", "failed", "crashes"
    );
    let mut sum = Totals::default();
    for ((name, _), totals) in chosen.iter().zip(&all) {
        line(name, totals);
        sum.add(totals);
    }
    if chosen.len() > 1 {
        line("all", &sum);
    }
    println!(
        "{:.1} s, {:.0} games of {} steps a minute, seeds from {first}. No promise was broken.",
        seconds,
        sum.games as f64 / seconds * 60.0,
        options.steps
    );
    Ok(())
}

fn line(name: &str, totals: &Totals) {
    let Totals { games, ios, disks, crashes, .. } = totals;
    println!(
        "{name:<12} {games:>9} {ios:>11} {:>11} {:>9} {crashes:>9}",
        disks.all(),
        disks.failed
    );
}
