//! `cargo xtask simulate`: plays games until the time is over or one is lost.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dm_core::testing::sim::{Totals, games, play};

const USAGE: &str = "usage: cargo xtask simulate [--seconds N] [--target NAME] [--seed N] \
                     [--steps N]";

struct Options {
    /// For how long; without it a minute, or just the game of the seed.
    seconds: Option<u64>,
    target: Option<String>,
    seed: Option<u64>,
    steps: u64,
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { seconds: None, target: None, seed: None, steps: 200 };
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} wants a value\n{USAGE}"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{value} is not a number"));
        match arg.as_str() {
            "--seconds" => options.seconds = Some(number()?),
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
    let mut chosen: Vec<_> = games::GAMES.to_vec();
    if let Some(target) = &options.target {
        chosen.retain(|(name, _)| name == target);
        if chosen.is_empty() {
            let names: Vec<&str> = games::GAMES.iter().map(|(name, _)| *name).collect();
            return Err(format!("no game is called {target}: there are {}", names.join(", ")));
        }
    }
    // A lost game is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let start = Instant::now();
    let one = options.seed.is_some() && options.seconds.is_none();
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
                    let steps = options.steps;
                    return Err(format!(
                        "{lost}\n\nA game of {name} was lost. To play it again:\n  cargo xtask \
                         simulate --target {name} --seed {seed} --steps {steps}\nTo keep it as a \
                         test: a line `{seed}` in sys/dev/dm/testing/sim/seeds/{name}."
                    ));
                }
            }
        }
        if one || start.elapsed() >= time {
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
