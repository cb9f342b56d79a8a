//! Instances whose share of the cores becomes another when their number does.

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

pub(super) const SHARING: Kind = Kind { name: "sharing", signature: no_signature, load };

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
        let config = CONFIG.replace("constant", "sharing");
        let group = format!("instance_group [ {{ count: {count} kind: KIND_CPU }} ]");
        self.repository.write("m/config.pbtxt", &format!("{config} {group}"));
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
