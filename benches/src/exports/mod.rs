//! `scripts/bench --exports`: plain exports beside other servers, over every transport and kind of image.
//!
//! All servers of a scene serve the same image, one at a time. Every row is run on every server before the next round begins,
//! in an order that rotates. A server that does nothing shows what the client can do, fio on the image what the image can.

mod null;
mod report;
mod rows;
mod scene;
mod servers;

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::report::Goal;
use report::Measured;
use rows::WORK;
use scene::{SCENES, Scene, Stage};
use servers::{SERVERS, Server};

/// What to run.
pub struct Scope {
    /// Rounds per scene.
    pub rounds: usize,
    /// Of one run of fio.
    pub seconds: f64,
    /// Scenes by name; empty: all.
    pub scenes: Vec<String>,
    /// Only rows with one of these in their name; empty: all.
    pub rows: Vec<String>,
}

/// Run them, print the tables. Returns the goals.
pub fn run(scope: &Scope) -> Result<Vec<Goal>> {
    let names = SCENES.map(|scene| scene.name);
    for wanted in &scope.scenes {
        ensure!(
            names.contains(&wanted.as_str()),
            "no scene {wanted:?}; there are {}",
            names.join(", ")
        );
    }
    let mut goals = Vec::new();
    for scene in SCENES {
        if scope.scenes.is_empty() || scope.scenes.iter().any(|wanted| wanted == scene.name) {
            goals.extend(measure(scene, scope)?.print());
        }
    }
    Ok(goals)
}

fn measure(scene: Scene, scope: &Scope) -> Result<Measured> {
    let stage = Stage::new(scene)?;
    let servers: Vec<Server> = SERVERS
        .iter()
        .map(|start| start(&stage))
        .collect::<Result<_>>()
        .context("starting the servers")?;
    let mut measured = Measured {
        scene,
        names: servers.iter().map(|server| server.name).collect(),
        samples: vec![vec![Vec::new(); servers.len()]; WORK.len()],
        image: vec![Vec::new(); WORK.len()],
    };
    let started = Instant::now();
    for round in 0..scope.rounds {
        run_round(&stage, &servers, round, scope, &mut measured)?;
        let seconds = started.elapsed().as_secs();
        eprintln!(
            "{}: round {} of {} done, {seconds} s",
            scene.name,
            round + 1,
            scope.rounds
        );
    }
    Ok(measured)
}

fn run_round(stage: &Stage, servers: &[Server], round: usize, scope: &Scope, measured: &mut Measured) -> Result<()> {
    for (at, work) in WORK.iter().enumerate() {
        let name = work.row().name;
        if !scope.rows.is_empty() && !scope.rows.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        for turn in 0..servers.len() {
            let index = (turn + round) % servers.len();
            let server = &servers[index];
            if !server.takes_part() {
                continue;
            }
            let sample = work
                .run(stage, server, scope.seconds)
                .with_context(|| format!("{name} on {}", server.name))?;
            measured.samples[at][index].push(sample);
        }
        if let Some(sample) = work.run_on_image(stage, scope.seconds) {
            measured.image[at].push(sample.context("fio on the image")?);
        }
    }
    Ok(())
}
