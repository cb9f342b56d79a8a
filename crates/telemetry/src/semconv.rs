//! Every name that leaves Consort as telemetry: metrics, spans and attributes.
//!
//! A name is written once, here; dashboards, alerts and clients depend on them, so a change is a
//! breaking change.

/// Spans: their target and their names.
pub mod span {
    /// The target of every span: what has it is exported and never logged.
    pub const TARGET: &str = "consort::trace";
    /// A request, from its reception to its last response; exported as `infer MODEL`.
    pub const REQUEST: &str = "infer";
    /// One step of an ensemble; exported as `step MODEL`.
    pub const STEP: &str = "step";
    /// Waiting for an instance.
    pub const QUEUE: &str = "queue";
    /// One execution, linked both ways with the requests that rode in it.
    pub const BATCH: &str = "batch";
    /// Inference itself.
    pub const COMPUTE: &str = "compute";
    /// The event of a request's first response.
    pub const FIRST_RESPONSE: &str = "first response";
}

/// Attributes of spans; those that Triton's spans have too keep Triton's names.
pub mod attribute {
    /// The model.
    pub const MODEL_NAME: &str = "triton.model_name";
    /// The version of the model; absent until one is chosen.
    pub const MODEL_VERSION: &str = "triton.model_version";
    /// The caller's name for the request; absent when it gave none.
    pub const REQUEST_ID: &str = "triton.request_id";
    /// How the request came in: `http` or `grpc`.
    pub const PROTOCOL: &str = "network.protocol.name";
    /// The kind of a failure.
    pub const ERROR_TYPE: &str = "error.type";
    /// The ensemble that a step belongs to.
    pub const ENSEMBLE: &str = "consort.ensemble";
    /// The step's place within its ensemble, from 0.
    pub const STEP: &str = "consort.step";
    /// The requests that rode in a batch.
    pub const REQUESTS: &str = "consort.batch.requests";
    /// The sum of their batch sizes.
    pub const INFERENCES: &str = "consort.batch.inferences";
}

/// OpenTelemetry's conventions for generative AI: attributes of spans, and metrics.
pub mod gen_ai {
    use super::{Family, histogram};

    /// What the model was asked to do: `chat`, `text_completion` or `embeddings`.
    pub const OPERATION: &str = "gen_ai.operation.name";
    /// Who answers: `consort`.
    pub const PROVIDER: &str = "gen_ai.provider.name";
    /// The model that was asked.
    pub const REQUEST_MODEL: &str = "gen_ai.request.model";
    /// The model that answered.
    pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
    /// What the response is called.
    pub const RESPONSE_ID: &str = "gen_ai.response.id";
    /// The most tokens to generate.
    pub const MAX_TOKENS: &str = "gen_ai.request.max_tokens";
    /// How many texts there are to be.
    pub const CHOICES: &str = "gen_ai.request.choice.count";
    /// The seed.
    pub const SEED: &str = "gen_ai.request.seed";
    /// What the logits are divided by.
    pub const TEMPERATURE: &str = "gen_ai.request.temperature";
    /// The share of the likeliest tokens that are kept.
    pub const TOP_P: &str = "gen_ai.request.top_p";
    /// How many of the likeliest tokens are kept.
    pub const TOP_K: &str = "gen_ai.request.top_k";
    /// What a token loses for each time it came.
    pub const FREQUENCY_PENALTY: &str = "gen_ai.request.frequency_penalty";
    /// What a token loses for having come.
    pub const PRESENCE_PENALTY: &str = "gen_ai.request.presence_penalty";
    /// What the text is to be: `text` or `json`.
    pub const OUTPUT_TYPE: &str = "gen_ai.output.type";
    /// The tokens of the prompts.
    pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    /// The tokens that were generated.
    pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    /// Why each text ended.
    pub const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";

    /// The tokens of one request: `gen_ai.client.token.usage`.
    pub const TOKEN_USAGE: Family =
        histogram("gen_ai_client_token_usage", "Number of input and output tokens used");
    /// From reception to the last token: `gen_ai.server.request.duration`.
    pub const REQUEST_DURATION: Family = histogram(
        "gen_ai_server_request_duration_seconds",
        "Generative AI server request duration such as time-to-last byte or last output token",
    );
    /// From reception to the first token: `gen_ai.server.time_to_first_token`.
    pub const TIME_TO_FIRST_TOKEN: Family = histogram(
        "gen_ai_server_time_to_first_token_seconds",
        "Time to generate first token for successful responses",
    );
    /// Each token after the first: `gen_ai.server.time_per_output_token`.
    pub const TIME_PER_OUTPUT_TOKEN: Family = histogram(
        "gen_ai_server_time_per_output_token_seconds",
        "Time per output token generated after the first token for successful responses",
    );
}

/// A metric: its name, what it says and how it is read.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The name before its labels.
    pub name: &'static str,
    /// One sentence for the person who reads the exposition.
    pub help: &'static str,
    /// The Prometheus type: `counter`, `gauge`, `histogram` or `summary`.
    pub kind: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: "counter" }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: "gauge" }
}

const fn summary(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: "summary" }
}

const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { name, help, kind: "histogram" }
}

/// Labels of metrics.
pub mod label {
    /// The model.
    pub const MODEL: &str = "model";
    /// The model's version.
    pub const VERSION: &str = "version";
    /// Why a request failed: `REJECTED`, `CANCELED`, `BACKEND` or `OTHER`.
    pub const REASON: &str = "reason";
    /// The name under which the gateway knows a service.
    pub const STAGE: &str = "stage";
    /// The address of one process of a service.
    pub const REPLICA: &str = "replica";
    /// The share of values at or below a summary's value.
    pub const QUANTILE: &str = "quantile";
    /// The GPU that a number speaks of.
    pub const GPU_UUID: &str = "gpu_uuid";
    /// What was computed: `useful` for what requests asked for, `padding` for the rest.
    pub const KIND: &str = "kind";
    /// What a model was asked to do, as in [`gen_ai`](super::gen_ai).
    pub const GEN_AI_OPERATION: &str = "gen_ai_operation_name";
    /// The model that was asked.
    pub const GEN_AI_MODEL: &str = "gen_ai_request_model";
    /// Whether tokens went in or came out: `input` or `output`.
    pub const GEN_AI_TOKEN_TYPE: &str = "gen_ai_token_type";
    /// The kind of a failure; absent from what was answered.
    pub const ERROR_TYPE: &str = "error_type";
    /// How a call ended: `success`, `failure`, `unavailable` or `cancelled`.
    pub const OUTCOME: &str = "outcome";
    /// The ensemble that a step belongs to.
    pub const ENSEMBLE: &str = "ensemble";
    /// The step's place within its ensemble, from 0.
    pub const STEP: &str = "step";
}

/// Metrics that Triton has too, under Triton's names; durations are cumulative microseconds.
pub mod triton {
    use super::{Family, counter, gauge, histogram, summary};

    /// From reception to the first response; only where histograms are asked for.
    pub const FIRST_RESPONSE_HISTOGRAM: Family = histogram(
        "nv_inference_first_response_histogram_ms",
        "Duration from request to first response in milliseconds",
    );
    /// From reception to the last response; this and the next only where summaries are asked for.
    pub const REQUEST_SUMMARY: Family = summary(
        "nv_inference_request_summary_us",
        "Summary of inference request duration in microseconds",
    );
    /// Waiting for an instance.
    pub const QUEUE_SUMMARY: Family = summary(
        "nv_inference_queue_summary_us",
        "Summary of inference queuing duration in microseconds",
    );
    /// Gathering the inputs.
    pub const COMPUTE_INPUT_SUMMARY: Family = summary(
        "nv_inference_compute_input_summary_us",
        "Summary of compute input duration in microseconds",
    );
    /// Running the model.
    pub const COMPUTE_INFER_SUMMARY: Family = summary(
        "nv_inference_compute_infer_summary_us",
        "Summary of compute inference duration in microseconds",
    );
    /// Scattering the outputs.
    pub const COMPUTE_OUTPUT_SUMMARY: Family = summary(
        "nv_inference_compute_output_summary_us",
        "Summary of compute output duration in microseconds",
    );
    /// Requests answered.
    pub const REQUEST_SUCCESS: Family = counter(
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
    );
    /// Requests that ended without their answer, by reason.
    pub const REQUEST_FAILURE: Family = counter(
        "nv_inference_request_failure",
        "Number of failed inference requests, all batch sizes",
    );
    /// Inferences: a batch of n counts n.
    pub const INFERENCE_COUNT: Family =
        counter("nv_inference_count", "Number of inferences performed, a batch of n counting n");
    /// Executions: a batch counts once.
    pub const EXECUTION_COUNT: Family = counter(
        "nv_inference_exec_count",
        "Number of model executions performed, a batch counting once",
    );
    /// From reception to the last response, successful requests only.
    pub const REQUEST_DURATION: Family = counter(
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds",
    );
    /// From the queue's tail to an instance.
    pub const QUEUE_DURATION: Family = counter(
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds",
    );
    /// Gathering the inputs.
    pub const COMPUTE_INPUT_DURATION: Family = counter(
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds",
    );
    /// Running the model.
    pub const COMPUTE_INFER_DURATION: Family = counter(
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds",
    );
    /// Scattering the outputs.
    pub const COMPUTE_OUTPUT_DURATION: Family = counter(
        "nv_inference_compute_output_duration_us",
        "Cumulative compute output duration in microseconds",
    );
    /// Requests that wait for an instance: the signal to scale on.
    pub const PENDING_REQUESTS: Family = gauge(
        "nv_inference_pending_request_count",
        "Instantaneous number of pending requests awaiting execution",
    );
    /// How busy the processors of the machine were since the reading before.
    pub const CPU_UTILIZATION: Family =
        gauge("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]");
    /// The machine's memory.
    pub const CPU_MEMORY_TOTAL: Family =
        gauge("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes");
    /// What of it is in use.
    pub const CPU_MEMORY_USED: Family =
        gauge("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes");
    /// How busy a GPU is.
    pub const GPU_UTILIZATION: Family =
        gauge("nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0)");
    /// What of a GPU's memory is in use.
    pub const GPU_MEMORY_USED: Family =
        gauge("nv_gpu_memory_used_bytes", "GPU used memory, in bytes");
    /// A GPU's memory.
    pub const GPU_MEMORY_TOTAL: Family =
        gauge("nv_gpu_memory_total_bytes", "GPU total memory, in bytes");
    /// What a GPU draws now.
    pub const GPU_POWER_USAGE: Family = gauge("nv_gpu_power_usage", "GPU power usage in watts");
    /// What it may draw.
    pub const GPU_POWER_LIMIT: Family =
        gauge("nv_gpu_power_limit", "GPU power management limit in watts");
    /// What it has used since the program began to read it.
    pub const ENERGY_CONSUMPTION: Family = counter(
        "nv_energy_consumption",
        "GPU energy consumption in joules since the server started",
    );
    /// Requests answered without a run, thanks to the response cache.
    pub const CACHE_HITS: Family =
        counter("nv_cache_num_hits_per_model", "Number of cache hits per model");
    /// Requests looked for in the response cache in vain.
    pub const CACHE_MISSES: Family =
        counter("nv_cache_num_misses_per_model", "Number of cache misses per model");
    /// Finding responses in the cache.
    pub const CACHE_HIT_DURATION: Family = counter(
        "nv_cache_hit_duration_per_model",
        "Cumulative time to answer from the cache in microseconds",
    );
    /// Looking in vain, and keeping what was computed instead.
    pub const CACHE_MISS_DURATION: Family = counter(
        "nv_cache_miss_duration_per_model",
        "Cumulative time to look for responses in vain and to keep new ones in microseconds",
    );
    /// How long the load took.
    pub const LOAD_DURATION: Family =
        gauge("nv_model_load_duration_secs", "Model load time in seconds");
}

/// Metrics of Consort's own.
pub mod consort {
    use super::{Family, counter, gauge, histogram};

    /// The running version; always 1.
    pub const BUILD_INFO: Family = gauge("consort_build_info", "The running version of Consort");
    /// From reception to the last response, successful requests only.
    pub const REQUEST_DURATION: Family = histogram(
        "consort_request_duration_seconds",
        "Time from a request's reception to its last response, successful requests only",
    );
    /// From reception to the first response.
    pub const FIRST_RESPONSE_DURATION: Family = histogram(
        "consort_first_response_duration_seconds",
        "Time from a request's reception to its first response",
    );
    /// The instances that take requests now.
    pub const INSTANCES: Family =
        gauge("consort_model_instances", "Instances of a model that take requests");
    /// Waiting for an instance, whatever ended the wait.
    pub const QUEUE_DURATION: Family = histogram(
        "consort_queue_duration_seconds",
        "Time that a request waited for an instance, whatever ended the wait",
    );
    /// One execution: inputs, inference and outputs.
    pub const COMPUTE_DURATION: Family = histogram(
        "consort_compute_duration_seconds",
        "Time of one execution: gathering inputs, inference and scattering outputs",
    );
    /// The inferences of one execution.
    pub const BATCH_SIZE: Family =
        histogram("consort_batch_size", "Inferences that one execution performed together");
    /// The share of one execution that went into padding.
    pub const PADDING_WASTE: Family = histogram(
        "consort_padding_waste_ratio",
        "Share of an execution's elements that were padding, from 0 to 1, where requests are padded",
    );
    /// Elements computed, useful ones and padding.
    pub const BATCH_ELEMENTS: Family = counter(
        "consort_batch_elements",
        "Elements or tokens computed for requests that are padded, by whether a request asked for them",
    );
    /// One step of an ensemble, from its call to its last response.
    pub const STEP_DURATION: Family = histogram(
        "consort_step_duration_seconds",
        "Time of one ensemble step from its call to its last response, successful calls only",
    );
    /// Failed calls of one step, by reason.
    pub const STEP_FAILURES: Family =
        counter("consort_step_failures", "Calls of an ensemble step that failed, by reason");
    /// Calls of one step that are open.
    pub const STEP_IN_FLIGHT: Family =
        gauge("consort_step_in_flight", "Calls of an ensemble step that have not ended");
    /// What the calls of one step waited where its model runs.
    pub const STEP_QUEUE: Family = counter(
        "consort_step_queue_seconds",
        "Cumulative time that successful calls of an ensemble step waited for an instance",
    );
    /// What instances worked for one step.
    pub const STEP_COMPUTE: Family = counter(
        "consort_step_compute_seconds",
        "Cumulative time that instances worked for successful calls of an ensemble step",
    );
    /// Calls that are open to one replica.
    pub const UPSTREAM_IN_FLIGHT: Family =
        gauge("consort_upstream_in_flight", "Calls to a replica that have not ended");
    /// Calls to one replica that have ended, by outcome.
    pub const UPSTREAM_REQUESTS: Family =
        counter("consort_upstream_requests", "Calls to a replica that have ended");
}

/// Metrics of the process, named as every Prometheus client names them.
pub mod process {
    use super::{Family, counter, gauge};

    /// Memory in use.
    pub const RESIDENT_MEMORY: Family =
        gauge("process_resident_memory_bytes", "Resident memory size in bytes");
    /// Processor time used, over all threads.
    pub const CPU_SECONDS: Family =
        counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds");
}
