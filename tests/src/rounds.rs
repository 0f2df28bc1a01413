//! What the programs that run rounds of trouble are told, and what they say at the beginning and the end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// How long to go on, and from which seed.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    /// Rounds, at most.
    pub rounds: u64,
    /// Time, at most.
    pub limit: Duration,
    /// Where chance begins.
    pub seed: u64,
}

impl Rounds {
    /// Read the program's arguments. `usual` and `short`: rounds and seconds, without `--rounds` and `--seconds-max`, and
    /// with `--short`. `own` takes what only this program knows, by its name and with what follows; false: it does not.
    ///
    /// # Errors
    /// An argument that nobody knows, or one without its value.
    pub fn read(
        usage: &str,
        usual: (u64, u64),
        short: (u64, u64),
        mut own: impl FnMut(&str, &mut dyn Iterator<Item = String>) -> Result<bool>,
    ) -> Result<Self> {
        let mut arguments = std::env::args().skip(1);
        let mut options = Self {
            rounds: usual.0,
            limit: Duration::from_secs(usual.1),
            seed: SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64,
        };
        while let Some(argument) = arguments.next() {
            let mut number = || -> Result<u64> { Ok(arguments.next().with_context(|| usage.to_owned())?.parse()?) };
            match argument.as_str() {
                "--rounds" => options.rounds = number()?,
                "--seconds-max" => options.limit = Duration::from_secs(number()?),
                "--seed" => options.seed = number()?,
                "--short" => (options.rounds, options.limit) = (short.0, Duration::from_secs(short.1)),
                "--help" => {
                    println!("{usage}");
                    std::process::exit(0);
                }
                other => {
                    if !own(other, &mut arguments)? {
                        bail!("unknown argument {other:?}; {usage}");
                    }
                }
            }
        }
        Ok(options)
    }

    /// Say what comes.
    pub fn announce(&self, what: &str) {
        let (rounds, seconds, seed) = (self.rounds, self.limit.as_secs(), self.seed);
        println!("{what}: up to {rounds} rounds, {seconds} s, seed {seed}");
    }

    /// Say so if time ran out before all rounds were `done`.
    pub fn conclude(&self, done: u64) {
        if done < self.rounds {
            println!("(stopped by its time limit before {} rounds)", self.rounds);
        }
    }
}
