//! What is tried, in order: each sentence is a test, and each builds on the services the one before left running.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::stack::{GATEWAY, GATEWAY_GRPC, Stack};
use crate::checkout::Checkout;
use crate::http;

/// A sentence and what proves it.
type Check = (&'static str, fn(&mut Stack) -> Result<()>);

/// The scenario.
pub(crate) const SCENARIO: [Check; 12] = [
    ("the images are small", images_are_small),
    ("the services start and become healthy", services_become_healthy),
    ("the composed services continue every reference text", text_is_the_reference),
    ("the route of a model and of its version give the same text", routes_agree),
    ("the text streams token by token", text_streams),
    ("tritonclient works with them unmodified", clients_work),
    ("tritonclient can call each stage alone", stages_answer_alone),
    ("embeddings agree with onnxruntime in Python", embeddings_agree),
    ("a second model replica joins and both get work", two_replicas_share),
    ("requests go on while one replica is stopped", one_replica_may_stop),
    ("a replica that comes back gets work again", a_replica_comes_back),
    ("every service finishes on SIGTERM with status 0", services_end_well),
];

/// Image and the most megabytes it may have.
const SIZES: [(&str, u64); 4] = [
    ("consort-gateway:0.1.0", 120),
    ("consort-preprocess:0.1.0", 120),
    ("consort-postprocess:0.1.0", 120),
    ("consort-model:0.1.0", 200),
];

/// How long containers may take to become healthy.
const PATIENCE: Duration = Duration::from_secs(90);

fn images_are_small(stack: &mut Stack) -> Result<()> {
    for (image, most) in SIZES {
        let bytes: u64 = stack.inspect(image, "{{.Size}}")?.parse()?;
        let size = bytes / 1_000_000;
        println!("    {image}: {size} MB, at most {most} MB");
        ensure!(size <= most, "`{image}` has {size} MB, at most {most} are allowed");
    }
    Ok(())
}

fn services_become_healthy(stack: &mut Stack) -> Result<()> {
    stack.up(1)?;
    for program in Checkout::SERVICES {
        let service = program.trim_start_matches("consort-");
        let containers = stack.containers(service)?;
        ensure!(!containers.is_empty(), "`{service}` has no container");
        for container in containers {
            wait_for_health(stack, &container)?;
        }
    }
    let ready = http::get(GATEWAY, "/v2/health/ready")?;
    ensure!(ready.status == 200, "the gateway is not ready: status {}", ready.status);
    Ok(())
}

fn text_is_the_reference(stack: &mut Stack) -> Result<()> {
    for reference in &stack.references {
        let text = reference.generate("/generate")?;
        let expected = &reference.greedy_text;
        ensure!(
            &text == expected,
            "`{}` was continued `{text}`, not `{expected}`",
            reference.prompt
        );
    }
    Ok(())
}

fn routes_agree(stack: &mut Stack) -> Result<()> {
    let reference = &stack.references[0];
    for path in ["/v2/models/generate/generate", "/v2/models/generate/versions/1/generate"] {
        ensure!(reference.generate(path)? == reference.greedy_text, "`{path}` gives another text");
    }
    Ok(())
}

fn text_streams(stack: &mut Stack) -> Result<()> {
    let reference = &stack.references[0];
    let answer = http::post(GATEWAY, "/generate_stream", &reference.request())?;
    let events: Vec<&str> =
        answer.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let mut text = String::new();
    for event in &events {
        let event: Value = serde_json::from_str(event)?;
        text += event["text_output"].as_str().with_context(|| format!("no text in {event}"))?;
    }
    ensure!(events.len() > 1, "everything came in {} event", events.len());
    ensure!(text == reference.greedy_text, "the events add up to `{text}`");
    Ok(())
}

fn clients_work(stack: &mut Stack) -> Result<()> {
    stack.python("triton_clients.py", &[GATEWAY, GATEWAY_GRPC])
}

fn stages_answer_alone(stack: &mut Stack) -> Result<()> {
    let mut stages = Vec::new();
    for service in ["preprocess", "model", "postprocess"] {
        let containers = stack.containers(service)?;
        let container = containers.first().with_context(|| format!("`{service}` does not run"))?;
        stages.push(stack.address(container, 8001)?);
    }
    stack.python("one_stage.py", &stages.iter().map(String::as_str).collect::<Vec<_>>())
}

fn embeddings_agree(stack: &mut Stack) -> Result<()> {
    stack.python("embeddings.py", &[GATEWAY_GRPC, &stack.repository()])
}

fn two_replicas_share(stack: &mut Stack) -> Result<()> {
    stack.up(2)?;
    let replicas = stack.containers("model")?;
    ensure!(replicas.len() == 2, "{} containers of `model` run", replicas.len());
    for replica in &replicas {
        wait_for_health(stack, replica)?;
    }
    wait_until_all_work(stack, &replicas)
}

fn one_replica_may_stop(stack: &mut Stack) -> Result<()> {
    let replicas = stack.containers("model")?;
    let stopped = replicas.first().context("no replica runs")?;
    thread::scope(|scope| {
        let stack = &*stack;
        let caller = || (0..12).try_for_each(|_| request(stack));
        let callers: Vec<_> = (0..2).map(|_| scope.spawn(caller)).collect();
        stack.docker(&["stop", stopped])?;
        callers.into_iter().try_for_each(|caller| caller.join().expect("a caller does not panic"))
    })?;
    request(stack)
}

fn a_replica_comes_back(stack: &mut Stack) -> Result<()> {
    stack.up(2)?;
    let replicas = stack.containers("model")?;
    for replica in &replicas {
        wait_for_health(stack, replica)?;
    }
    wait_until_all_work(stack, &replicas)
}

fn services_end_well(stack: &mut Stack) -> Result<()> {
    let mut containers = Vec::new();
    for program in Checkout::SERVICES {
        containers.extend(stack.containers(program.trim_start_matches("consort-"))?);
    }
    stack.stop()?;
    for container in containers {
        let ended = stack.inspect(&container, "{{.Name}} {{.State.ExitCode}}")?;
        ensure!(ended.ends_with(" 0"), "a service ended badly: {ended}");
    }
    Ok(())
}

/// One short generation, which must succeed.
fn request(stack: &Stack) -> Result<()> {
    let reference = &stack.references[0];
    ensure!(reference.generate("/generate")? == reference.greedy_text, "another text");
    Ok(())
}

/// Sends pairs of requests at once until each replica has answered one more.
fn wait_until_all_work(stack: &Stack, replicas: &[String]) -> Result<()> {
    let before = answered(stack, replicas)?;
    let started_at = Instant::now();
    loop {
        thread::scope(|scope| {
            let callers: Vec<_> = (0..2).map(|_| scope.spawn(|| request(stack))).collect();
            callers
                .into_iter()
                .try_for_each(|caller| caller.join().expect("a caller does not panic"))
        })?;
        let now = answered(stack, replicas)?;
        if now.iter().zip(&before).all(|(now, before)| now > before) {
            return Ok(());
        }
        ensure!(
            started_at.elapsed() < PATIENCE,
            "requests answered by each replica: {before:?}, then {now:?}"
        );
    }
}

/// How many requests each replica of `model` has answered, from its own metrics.
fn answered(stack: &Stack, replicas: &[String]) -> Result<Vec<f64>> {
    let count = |replica: &String| {
        let metrics = http::get(&stack.address(replica, 8002)?, "/metrics")?;
        let lines =
            metrics.body.lines().filter(|line| line.starts_with("nv_inference_request_success{"));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    };
    replicas.iter().map(count).collect()
}

fn wait_for_health(stack: &Stack, container: &str) -> Result<()> {
    let started_at = Instant::now();
    loop {
        let health = stack.inspect(container, "{{.State.Health.Status}}")?;
        if health == "healthy" {
            return Ok(());
        }
        if started_at.elapsed() > PATIENCE {
            bail!("{} is {health}", stack.inspect(container, "{{.Name}}")?);
        }
        thread::sleep(Duration::from_millis(500));
    }
}
