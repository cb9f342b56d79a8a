//! One `identity` model in one process: what a request costs at the front, over gRPC and HTTP.

use anyhow::Result;

use super::{Settings, elements, identity_request, is_identity};
use crate::load::http::Post;
use crate::load::{Contender, grpc, http, interleave};
use crate::program::{Launch, Program};
use crate::report::{Section, Verdict};
use crate::repository::{Repository, WIDTH};
use crate::sample::{Sample, Series, micros};

const MODEL: &str = "identity";
const CALLERS: [usize; 2] = [1, 16];

/// Measures requests a second, latency and processor time beside a bare echo.
pub(super) async fn run(settings: &Settings, title: &str) -> Result<Section> {
    let repository = Repository::new()?.identity(MODEL)?;
    let server = Launch::serve(&settings.programs, repository.path()).start()?;
    let echo = Program::echo()?;
    let mut section = Section::of_contenders(title);
    for callers in CALLERS {
        let [bare, served] = &over_grpc(settings, [&echo, &server], callers).await?[..] else {
            unreachable!("two contenders were given");
        };
        section.contenders(&[bare.clone(), served.clone()], bare);
        if callers > 1 {
            let rate = served.median(Sample::rate);
            let ratio = served.ratio(bare, Sample::rate);
            section.judge(Verdict::at_least("`identity` gRPC, 16 callers", rate, 22_000.0, "/s"));
            // 22,000 where a bare echo answers 33,000: what is left of the bar on a busy machine.
            let what = "the same to a bare tonic echo in the same run";
            section.judge(Verdict::at_least(what, ratio, 22.0 / 33.0, "×"));
            section.judge(cpu("gRPC", served, 45.0));
        }
    }
    for callers in CALLERS {
        let [bare, served] = &over_http(settings, [&echo, &server], callers).await?[..] else {
            unreachable!("two contenders were given");
        };
        section.contenders(&[bare.clone(), served.clone()], bare);
        if callers > 1 {
            section.judge(cpu("HTTP binary", served, 40.0));
        }
    }
    Ok(section)
}

fn cpu(protocol: &str, served: &Series, bar: f64) -> Verdict {
    let used = served.median(|sample| micros(sample.cpu_per_call()));
    Verdict::at_most(format!("server CPU per `identity` request, {protocol}"), used, bar, "µs")
}

async fn over_grpc(
    settings: &Settings,
    [echo, server]: [&Program; 2],
    count: usize,
) -> Result<Vec<Series>> {
    let request = identity_request(MODEL);
    let mut contenders = Vec::new();
    for (name, program) in [("bare tonic echo", echo), ("consort serve, gRPC", server)] {
        contenders.push(Contender {
            name: named(name, count),
            callers: grpc::callers(program.grpc, count, &request, is_identity).await?,
            programs: vec![program],
        });
    }
    interleave(contenders, settings.rounds, settings.time).await
}

async fn over_http(
    settings: &Settings,
    [echo, server]: [&Program; 2],
    count: usize,
) -> Result<Vec<Series>> {
    let (json, elements) = (json(), elements());
    let body = [json.as_bytes(), &elements].concat();
    let headers = format!("inference-header-content-length: {}\r\n", json.len());
    let to = |path| Post { path, headers: headers.clone(), body: &body };
    let path = format!("/v2/models/{MODEL}/infer");
    let is_right = |answer: &[u8]| answer.ends_with(&elements);
    let echo = Contender {
        name: named("bare HTTP echo", count),
        callers: http::callers(echo.http, count, &to("/"), is_right).await?,
        programs: vec![echo],
    };
    let server = Contender {
        name: named("consort serve, HTTP binary", count),
        callers: http::callers(server.http, count, &to(&path), is_right).await?,
        programs: vec![server],
    };
    interleave(vec![echo, server], settings.rounds, settings.time).await
}

/// The JSON part of a request whose tensors are binary, as Triton's Python client writes it.
fn json() -> String {
    let size = WIDTH * size_of::<f32>();
    format!(
        "{{\"inputs\":[{{\"name\":\"INPUT0\",\"shape\":[1,{WIDTH}],\"datatype\":\"FP32\",\
         \"parameters\":{{\"binary_data_size\":{size}}}}}],\
         \"outputs\":[{{\"name\":\"OUTPUT0\",\"parameters\":{{\"binary_data\":true}}}}]}}"
    )
}

fn named(name: &str, callers: usize) -> String {
    format!("{name}, {callers} caller{}", if callers == 1 { "" } else { "s" })
}
