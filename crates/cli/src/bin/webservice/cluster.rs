//! The cluster, as the tool sees it through its own kubeconfig: as few requests as possible, each with a time limit.

use std::future::Future;
use std::time::Duration;

use hearth_core::ToolName;
use hearth_core::names::PUBLIC_NAMESPACE;
use hearth_core::webservice::state::{Log, Seen};
use hearth_core::webservice::{CONTAINER, MANAGER, Objects, State, Types, objects, types};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Service};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::{Failure, Outcome};
use crate::identity::Identity;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// How many last lines of a log are shown.
const LOG_LINES: i64 = 10;

/// The context in a tool's kubeconfig that the platform writes; a maintainer's own contexts stand beside it.
const CONTEXT: &str = "toolforge";

/// The cluster and the tool in it.
pub(crate) struct Cluster {
    tool: ToolName,
    server: String,
    pub(crate) deployments: Api<Deployment>,
    pub(crate) pods: Api<Pod>,
    client: Client,
}

/// The objects of a tool's web service that there are.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) deployment: Option<Deployment>,
    service: Option<Service>,
    ingress: Option<Ingress>,
}

impl Cluster {
    /// Reads the kubeconfig: the one that `KUBECONFIG` names, or the one in the tool's home. Nothing is sent yet.
    pub(crate) async fn open(identity: &Identity) -> Outcome<Self> {
        let file = identity.home.join(".kube/config");
        let error = |e: kube::config::KubeconfigError| {
            Failure::environment(format!(
                "the tool's kubeconfig {} is not usable: {e}; the platform writes it within seconds of making a tool: if it stays so, tell the platform's operators",
                file.display()
            ))
        };
        let kubeconfig = match Kubeconfig::from_env().map_err(error)? {
            Some(kubeconfig) => kubeconfig,
            None => Kubeconfig::read_from(&file).map_err(error)?,
        };
        let context = kubeconfig.contexts.iter().any(|c| c.name == CONTEXT).then(|| CONTEXT.to_owned());
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(error)?;
        config.connect_timeout = Some(CONNECT);
        let server = config.cluster_url.to_string();
        let client =
            Client::try_from(config).map_err(|e| Failure::environment(format!("the kubeconfig is not usable: {e}")))?;
        let namespace = identity.tool.namespace();
        Ok(Self {
            tool: identity.tool.clone(),
            server,
            deployments: Api::namespaced(client.clone(), &namespace),
            pods: Api::namespaced(client.clone(), &namespace),
            client,
        })
    }

    /// The tool's objects of a kind.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.tool.namespace())
    }

    /// What there is of the web service.
    pub(crate) async fn look(&self) -> Outcome<Found> {
        let (services, ingresses) = (self.api::<Service>(), self.api::<Ingress>());
        let ingress = objects::ingress_name(&self.tool);
        let (deployment, service, ingress) = futures::try_join!(
            self.call(self.deployments.get_opt(self.tool.as_str())),
            self.call(services.get_opt(self.tool.as_str())),
            self.call(ingresses.get_opt(&ingress)),
        )?;
        Ok(Found { deployment, service, ingress })
    }

    /// Its Deployment alone.
    pub(crate) async fn deployment(&self) -> Outcome<Option<Deployment>> {
        self.call(self.deployments.get_opt(self.tool.as_str())).await
    }

    /// The types of web services that the platform has.
    pub(crate) async fn types(&self) -> Outcome<Types> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), PUBLIC_NAMESPACE);
        let map = self.call(maps.get_opt(types::CONFIG_MAP)).await?;
        let faulty = |what: &str| {
            Failure::cluster(format!("the platform's list of types is {what}; tell the platform's operators"))
        };
        let text = map.and_then(|map| map.data?.remove(types::KEY)).ok_or_else(|| faulty("missing"))?;
        Types::parse(&text).map_err(|e| faulty(&format!("damaged ({e})")))
    }

    /// Makes the objects, or makes them as they should be. Gives the Deployment's generation. What did not exist
    /// before is removed again when one of the others is refused, so that nothing is half done.
    pub(crate) async fn apply(&self, objects: &Objects, before: &Found) -> Outcome<Option<i64>> {
        let (deployment, service, ingress) = futures::join!(
            self.apply_one(&objects.deployment),
            self.apply_one(&objects.service),
            self.apply_one(&objects.ingress),
        );
        let new = Found {
            deployment: deployment.as_ref().ok().filter(|_| before.deployment.is_none()).cloned(),
            service: service.as_ref().ok().filter(|_| before.service.is_none()).cloned(),
            ingress: ingress.as_ref().ok().filter(|_| before.ingress.is_none()).cloned(),
        };
        match (deployment, service, ingress) {
            (Ok(deployment), Ok(_), Ok(_)) => Ok(deployment.metadata.generation),
            (Err(failure), ..) | (_, Err(failure), _) | (.., Err(failure)) => {
                // The failure above is what is to be told; what cannot be removed either is found by the next run.
                let _ = self.delete(&new).await;
                Err(failure)
            }
        }
    }

    async fn apply_one<K>(&self, object: &K) -> Outcome<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let params = PatchParams::apply(MANAGER).force();
        let (api, name) = (self.api::<K>(), object.name_any());
        self.call(api.patch(&name, &params, &Patch::Apply(object))).await
    }

    /// Removes the objects that were found; the Deployment goes last of its own, after its pods.
    pub(crate) async fn delete(&self, found: &Found) -> Outcome<()> {
        futures::try_join!(
            self.delete_one(found.deployment.as_ref()),
            self.delete_one(found.service.as_ref()),
            self.delete_one(found.ingress.as_ref()),
        )?;
        Ok(())
    }

    async fn delete_one<K>(&self, object: Option<&K>) -> Outcome<()>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let Some(object) = object else { return Ok(()) };
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            // Only what was looked at, not what took its place since.
            preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.limited(self.api::<K>().delete(&object.name_any(), &params)).await? {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(|_| ()).map_err(|e| self.failure(e)),
        }
    }

    /// The state of the web service, with all that explains it. A healthy one costs no further request.
    pub(crate) async fn state(&self, deployment: Option<&Deployment>) -> Outcome<State> {
        let seen = Seen { deployment, ..Seen::default() };
        let state = State::of(seen);
        if !matches!(state, State::Starting { .. } | State::Failing { .. }) {
            return Ok(state);
        }
        let pods = ListParams::default().labels(&objects::selector(&self.tool));
        let events = ListParams::default().fields("involvedObject.kind=Pod");
        let events_api = self.api::<Event>();
        let (pods, events) = futures::try_join!(self.call(self.pods.list(&pods)), self.call(events_api.list(&events)))?;
        let pods: Vec<&Pod> = pods.items.iter().collect();
        Ok(State::of(Seen { deployment, pods: &pods, events: &events.items }))
    }

    /// The last lines of a failing program; empty where there are none.
    pub(crate) async fn last_lines(&self, log: &Log) -> String {
        let params = |previous| LogParams {
            container: Some(CONTAINER.to_owned()),
            tail_lines: Some(LOG_LINES),
            previous,
            ..LogParams::default()
        };
        let mut text = String::new();
        if log.previous {
            text = self.call(self.pods.logs(&log.pod, &params(true))).await.unwrap_or_default();
        }
        if text.trim().is_empty() {
            text = self.call(self.pods.logs(&log.pod, &params(false))).await.unwrap_or_default();
        }
        text.trim_end().to_owned()
    }

    /// Waits for the answer to a request, within the limit.
    async fn call<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Outcome<T> {
        self.limited(request).await?.map_err(|e| self.failure(e))
    }

    async fn limited<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Outcome<kube::Result<T>> {
        tokio::time::timeout(LIMIT, request).await.map_err(|_| {
            Failure::cluster(format!(
                "the cluster at {} did not answer within {} s; try again, and tell the platform's operators if it stays so",
                self.server,
                LIMIT.as_secs()
            ))
        })
    }

    /// What is said of an error of the Kubernetes API.
    pub(crate) fn failure(&self, error: kube::Error) -> Failure {
        let kube::Error::Api(status) = error else {
            let what = match &error {
                kube::Error::SerdeError(_) => "gave an answer that cannot be understood",
                _ => "cannot be reached",
            };
            return Failure::cluster(format!(
                "the cluster at {} {what} ({}); try again, and tell the platform's operators if it stays so",
                self.server,
                innermost(&error)
            ));
        };
        Failure::cluster(match status.code {
            401 => "the cluster does not accept the tool's certificate: it is expired or was revoked; the platform renews it by itself within a minute, or else tell the platform's operators".to_owned(),
            403 if status.message.contains("cannot") => format!(
                "the tool {} may not do this: {}; a disabled tool may do nothing, ask the platform's operators",
                self.tool, status.message
            ),
            403 | 422 => format!("the platform refuses this: {}", status.message),
            code => format!("the cluster answered with an error ({code}): {}", status.message),
        })
    }
}

// === impl Found ===

impl Found {
    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.deployment.is_none() && self.service.is_none() && self.ingress.is_none()
    }

    /// Refuses to go on where an object that this command would replace or remove was made by someone else.
    pub(crate) fn refuse_foreign(&self) -> Outcome<()> {
        let kinds = [
            ("Deployment", self.deployment.as_ref().map(|o| &o.metadata)),
            ("Service", self.service.as_ref().map(|o| &o.metadata)),
            ("Ingress", self.ingress.as_ref().map(|o| &o.metadata)),
        ];
        let foreign = kinds.into_iter().filter_map(|(kind, meta)| Some((kind, meta?)));
        match foreign.into_iter().find(|(_, meta)| !objects::is_ours(meta)) {
            None => Ok(()),
            Some((kind, meta)) => {
                let name = meta.name.as_deref().unwrap_or_default();
                Err(Failure::failed(format!(
                    "the {kind} {name} was not made by webservice, so it is left alone; if you no longer need it, remove it with `kubectl delete {} {name}` and try again",
                    kind.to_ascii_lowercase()
                )))
            }
        }
    }
}

/// The cause at the end of a chain of errors, which says most.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
