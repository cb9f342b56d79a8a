//! Instances that come, go, move and share the cores anew while their model is served.

use consort_stage::BatchBackend;

use super::*;

/// The instances of a model's folder, each with its threads.
type Opened = BTreeMap<PathBuf, Vec<(usize, Weak<()>)>>;

static OPENED: LazyLock<Mutex<Opened>> = LazyLock::new(Mutex::default);

/// The folders of models of which no further instance can be opened.
static FULL: LazyLock<Mutex<BTreeSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// A backend that is the faster the more threads it has.
struct Sharing(#[expect(dead_code, reason = "held while it lives")] Arc<()>);

impl BatchBackend for Sharing {
    fn run(&mut self, _: Batch) -> Result<Vec<Tensor>> {
        Ok(vec![Tensor::from_vec("y", &[1], vec![1_i32])])
    }

    fn gains_from_threads(&self) -> bool {
        true
    }
}

pub(super) const SHARING: Kind = Kind { name: "sharing", load, ..CONSTANT };

fn load(instance: &Instance<'_>) -> Result<Backend> {
    let folder = instance.model_folder;
    if FULL.lock().contains(folder) {
        return Err(Error::internal("no memory is left"));
    }
    let life = Arc::new(());
    let opened = (instance.threads.get(), Arc::downgrade(&life));
    OPENED.lock().entry(folder.to_owned()).or_default().push(opened);
    Ok(Backend::Batch(Box::new(Sharing(life))))
}

/// A model of so many instances on four cores.
struct Model {
    repository: Repository,
    local: Arc<Local>,
    folder: PathBuf,
}

impl Model {
    async fn load(count: usize) -> Self {
        Self::load_with(count, None).await
    }

    async fn load_with(count: usize, limiter: Option<Arc<Limiter>>) -> Self {
        let repository = Repository::new();
        repository.write("m/1/value", "1");
        let local = repository.open_with(explicit(), limiter);
        let folder = repository.path().join("m");
        let model = Self { repository, local, folder };
        model.change(count).await;
        model
    }

    async fn change(&self, count: usize) {
        self.regroup(&format!("count: {count} kind: KIND_CPU")).await;
    }

    async fn regroup(&self, group: &str) {
        let config = CONFIG.replace("constant", "sharing");
        let config = format!("{config} instance_group [ {{ {group} }} ]");
        self.repository.write("m/config.pbtxt", &config);
        load_model(&self.local, "m").await.unwrap();
        assert_eq!(rows(&self.local), ["m 1 READY"]);
    }

    /// Waits until instances with so many threads live, and no others.
    async fn has(&self, threads: &[usize]) {
        let living = || {
            let opened = OPENED.lock();
            let all = opened.get(&self.folder).into_iter().flatten();
            let mut living: Vec<_> = all
                .filter(|(_, life)| life.strong_count() > 0)
                .map(|(threads, _)| *threads)
                .collect();
            living.sort_unstable();
            living
        };
        let wait = async {
            while living() != threads {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "{:?} and not {threads:?}", living());
    }

    fn stage(&self) -> Arc<dyn consort_stage::Stage> {
        self.local.get("m", None).unwrap().stage.clone()
    }
}

fn request() -> Request {
    Request { inputs: vec![Tensor::from_vec("x", &[1], vec![0_i32])], ..Request::default() }
}

#[tokio::test]
async fn instances_share_the_cores_however_many_they_become() {
    let model = Model::load(1).await;
    let stage = model.stage();
    model.has(&[4]).await;
    // The one with four threads is for requests that come alone.
    for (count, threads) in
        [(2, &[2, 2, 4][..]), (4, &[1, 1, 1, 1, 4]), (3, &[1, 1, 1, 4]), (1, &[4]), (1, &[4])]
    {
        model.change(count).await;
        model.has(threads).await;
        assert!(Arc::ptr_eq(&model.stage(), &stage), "it is the same version");
        let request = Request {
            inputs: vec![Tensor::from_vec("x", &[1], vec![0_i32])],
            ..Request::default()
        };
        collect_one(stage.call(request)).await.unwrap();
    }
}

#[tokio::test]
async fn an_instance_that_cannot_be_opened_anew_serves_on_as_it_is() {
    let model = Model::load(2).await;
    model.has(&[2, 2, 4]).await;
    FULL.lock().insert(model.folder.clone());
    model.change(1).await;
    model.has(&[2]).await;
    FULL.lock().remove(&model.folder);
    model.change(2).await;
    model.has(&[2, 2, 4]).await;
}

#[tokio::test]
async fn where_runs_are_limited_nobody_runs_beside_the_instances_that_are_stated() {
    let model = Model::load_with(2, Some(Arc::new(Limiter::new(Vec::new())))).await;
    model.has(&[2, 2]).await;
    model.change(1).await;
    model.has(&[4]).await;
    model.change(2).await;
    model.has(&[2, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_a_model_moves_to_another_device_and_back() {
    let model = Model::load(2).await;
    let local = model.local.clone();
    let (stop, stopped) = watch::channel(false);
    let caller = tokio::spawn(async move {
        let mut asked = 0;
        while !*stopped.borrow() {
            let served = local.get("m", None).unwrap();
            collect_one(served.stage.call(request())).await.unwrap();
            asked += 1;
        }
        asked
    });
    for (group, threads) in [
        ("count: 2 kind: KIND_GPU gpus: [ 0, 1 ]", &[1, 1, 1, 1, 4][..]),
        ("count: 1 kind: KIND_CPU", &[4]),
        ("count: 1 kind: KIND_GPU gpus: [ 1 ]", &[4]),
        ("count: 4 kind: KIND_CPU", &[1, 1, 1, 1, 4]),
    ] {
        let before = model.stage();
        model.regroup(group).await;
        assert!(!Arc::ptr_eq(&model.stage(), &before), "{group}: it was loaded beside the old one");
        drop(before);
        model.has(threads).await;
    }
    stop.send_replace(true);
    assert!(caller.await.unwrap() > 0);
}

#[tokio::test]
async fn what_waits_when_all_instances_become_passive_is_answered_and_nobody_after_it() {
    let repository = Repository::new();
    let config = |more: &str| {
        let groups = format!("{{ count: 1 kind: KIND_CPU {more} }}");
        repository.write("m/config.pbtxt", &grouped(&groups).replace("\"1\"", "\"20\""));
    };
    config("");
    repository.write("m/1/value", "1");
    let local = repository.open(ControlMode::Explicit { at_start: AtStart::All });
    settled(&local).await;
    let ask = || local.get("m", None).unwrap().stage.call(request());
    let mut calls: Vec<_> = (0..3).map(|_| ask()).collect();
    for call in &mut calls {
        assert!(futures::StreamExt::next(call).now_or_never().is_none());
    }
    config("passive: true");
    load_model(&local, "m").await.unwrap();
    let refused = collect_one(ask()).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "the model has no instance")
    );
    for call in calls {
        collect_one(call).await.unwrap();
    }
    config("");
    load_model(&local, "m").await.unwrap();
    collect_one(ask()).await.unwrap();
}
