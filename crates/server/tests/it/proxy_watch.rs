//! The front door's table while the cluster changes, the API server goes away, and the proxy starts again.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up fails")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hearth_core::route::grid::GridRoute;
use hearth_core::route::{Decision, Table};
use hearth_server::reverse_proxy::{Course, Followed, Follower, Metrics};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::proxy_api::{Api, slice, tool};
use crate::proxy_front::{domains, soon};

/// A follower at work.
struct Following {
    followed: Followed,
    task: JoinHandle<()>,
}

impl Following {
    fn start(api: &Api, state: Option<PathBuf>) -> Self {
        let stale_after = Duration::from_secs(30);
        let (follower, followed) = Follower::new(api.client(), domains(), state, stale_after, Metrics::new()).unwrap();
        Self { followed, task: tokio::spawn(follower.run(watch::Sender::new(Course::Serves).subscribe())) }
    }

    /// Waits until the table says this of a tool.
    async fn until(&mut self, tool: &str, expected: &str) {
        soon(self.followed.table.wait_for(|table| found(table, tool) == expected)).await.unwrap();
    }

    fn now(&self, tool: &str) -> String {
        found(&self.followed.table.borrow(), tool)
    }

    async fn stop(self) {
        self.task.abort();
        let _ = soon(self.task).await;
    }
}

/// What a table says of a tool's first page.
fn found(table: &Arc<Table>, tool: &str) -> String {
    match table.route(&format!("{tool}.hearth.example").parse().unwrap(), "/") {
        Decision::Endpoints(backend) => backend.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Decision::NoWebService(_) => "no web service".to_owned(),
        Decision::Unavailable(_) => "unavailable".to_owned(),
        Decision::UnknownTool(_) => "unknown".to_owned(),
        other => format!("{other:?}"),
    }
}

async fn put_all(api: &Api, name: &str, address: &str) {
    for (plural, object) in tool(name, address.parse().unwrap()) {
        api.put(plural, object).await;
    }
}

async fn watched(api: &Api, lists: usize, watches: usize) {
    for plural in ["namespaces", "services", "ingresses", "endpointslices"] {
        api.seen(plural, lists, watches).await;
    }
}

#[tokio::test]
async fn the_table_follows_the_cluster() {
    let api = Api::start().await;
    put_all(&api, "a", "10.0.0.1:80").await;
    let mut following = Following::start(&api, None);
    following.until("a", "10.0.0.1:80").await;
    watched(&api, 1, 1).await;
    put_all(&api, "b", "10.0.0.2:80").await;
    following.until("b", "10.0.0.2:80").await;
    api.put("endpointslices", slice("a", "10.0.0.3:81".parse().unwrap())).await;
    following.until("a", "10.0.0.3:81").await;
    api.delete("endpointslices", "a-slice").await;
    following.until("a", "unavailable").await;
    api.delete("ingresses", "a").await;
    following.until("a", "no web service").await;
    api.delete("namespaces", "tool-a").await;
    following.until("a", "unknown").await;
    assert!(following.followed.freshness.is_ready());
    following.stop().await;
}

#[tokio::test]
async fn a_change_says_nothing_of_the_age_of_the_table_and_a_bookmark_does() {
    let api = Api::start().await;
    put_all(&api, "a", "10.0.0.1:80").await;
    let mut following = Following::start(&api, None);
    following.until("a", "10.0.0.1:80").await;
    watched(&api, 1, 1).await;
    soon(following.followed.freshness.completed()).await;
    let listed = following.followed.freshness.oldest().unwrap();
    // The first of many changes that were missed looks the same.
    put_all(&api, "a", "10.0.0.2:80").await;
    following.until("a", "10.0.0.2:80").await;
    assert_eq!(following.followed.freshness.oldest(), Some(listed));
    for plural in ["namespaces", "services", "ingresses", "endpointslices"] {
        api.bookmark(plural).await;
    }
    soon(async {
        while following.followed.freshness.oldest() == Some(listed) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    following.stop().await;
}

#[tokio::test]
async fn an_ingress_that_changes_its_class_is_gone() {
    let api = Api::start().await;
    put_all(&api, "a", "10.0.0.1:80").await;
    let mut following = Following::start(&api, None);
    following.until("a", "10.0.0.1:80").await;
    watched(&api, 1, 1).await;
    let mut objects = tool("a", "10.0.0.1:80".parse().unwrap());
    let (plural, mut ingress) = objects.swap_remove(2);
    ingress["spec"]["ingressClassName"] = "other".into();
    api.put(plural, ingress).await;
    following.until("a", "no web service").await;
    following.stop().await;
}

#[tokio::test]
async fn a_web_service_that_registers_on_the_grid_goes_first() {
    let api = Api::start().await;
    put_all(&api, "a", "10.0.0.1:80").await;
    let on_grid = |tool: &str, address: &str| GridRoute {
        tool: tool.parse().unwrap(),
        address: address.parse().unwrap(),
        ready: true,
        job: 1,
        registered: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    let object = |route: GridRoute| serde_json::to_value(route.to_slice()).unwrap();
    let mut following = Following::start(&api, None);
    following.until("a", "10.0.0.1:80").await;
    watched(&api, 1, 1).await;
    api.put("endpointslices", object(on_grid("a", "192.0.2.7:34567"))).await;
    following.until("a", "192.0.2.7:34567").await;
    // What cannot be read any more is as good as gone.
    let mut broken = object(on_grid("a", "192.0.2.7:34567"));
    broken["ports"] = serde_json::json!([]);
    api.put("endpointslices", broken).await;
    following.until("a", "10.0.0.1:80").await;
    api.put("endpointslices", object(on_grid("a", "192.0.2.8:34567"))).await;
    following.until("a", "192.0.2.8:34567").await;
    api.delete("endpointslices", "a").await;
    following.until("a", "10.0.0.1:80").await;
    following.stop().await;
}

#[tokio::test]
async fn a_cut_watch_goes_on_and_an_expired_one_lists_again() {
    let api = Api::start().await;
    put_all(&api, "a", "10.0.0.1:80").await;
    let mut following = Following::start(&api, None);
    following.until("a", "10.0.0.1:80").await;
    watched(&api, 1, 1).await;

    api.cut(false);
    watched(&api, 1, 2).await;
    api.put("endpointslices", slice("a", "10.0.0.2:80".parse().unwrap())).await;
    following.until("a", "10.0.0.2:80").await;

    // What happened while nobody watched is found by the list.
    api.lose("ingresses", "a");
    api.cut(true);
    following.until("a", "no web service").await;
    watched(&api, 1, 2).await;
    api.seen("ingresses", 2, 3).await;
    following.stop().await;
}

#[tokio::test]
async fn an_api_server_that_is_away_takes_no_route_away() {
    let api = Api::start().await;
    put_all(&api, "a", "10.0.0.1:80").await;
    let mut following = Following::start(&api, None);
    following.until("a", "10.0.0.1:80").await;
    watched(&api, 1, 1).await;
    api.set_away(true);
    api.refused(4).await;
    assert_eq!(following.now("a"), "10.0.0.1:80");
    api.lose("endpointslices", "a-slice");
    api.cut(true);
    api.set_away(false);
    following.until("a", "unavailable").await;
    following.stop().await;
}

#[tokio::test]
async fn bookmarks_keep_the_table_fresh() {
    let api = Api::start().await;
    let following = Following::start(&api, None);
    watched(&api, 1, 1).await;
    let freshness = following.followed.freshness.clone();
    soon(async {
        while !freshness.is_ready() {
            tokio::task::yield_now().await
        }
    })
    .await;
    let before = freshness.oldest().unwrap();
    for plural in ["namespaces", "services", "ingresses"] {
        api.bookmark(plural).await;
    }
    // One kind is still only as fresh as its list.
    api.bookmark("endpointslices").await;
    soon(async {
        while freshness.oldest().unwrap() <= before {
            tokio::task::yield_now().await
        }
    })
    .await;
    following.stop().await;
}

#[tokio::test]
async fn a_restart_without_the_api_server_has_the_last_known_routes() {
    let directory = tempfile::tempdir().unwrap();
    let state = || Some(directory.path().to_owned());
    let api = Api::start().await;
    put_all(&api, "a", "10.0.0.1:80").await;
    let mut following = Following::start(&api, state());
    following.until("a", "10.0.0.1:80").await;
    let contact = directory.path().join("contact");
    soon(async {
        while !contact.exists() {
            tokio::task::yield_now().await
        }
    })
    .await;
    following.stop().await;

    api.set_away(true);
    let following = Following::start(&api, state());
    assert_eq!(following.now("a"), "10.0.0.1:80");
    assert!(!following.followed.freshness.is_stale(), "the contact was a moment ago");
    assert!(!following.followed.freshness.is_ready(), "nothing was listed since the start");
    following.stop().await;

    // The same snapshot, last confirmed long ago, is loaded and not dialled from.
    std::fs::write(&contact, "2026-01-01T00:00:00Z\n").unwrap();
    let following = Following::start(&api, state());
    assert_eq!(following.now("a"), "10.0.0.1:80");
    assert!(following.followed.freshness.is_stale());
    following.stop().await;

    // So is one whose contact cannot be read.
    std::fs::write(&contact, "yesterday").unwrap();
    let following = Following::start(&api, state());
    assert_eq!(following.now("a"), "10.0.0.1:80");
    assert!(following.followed.freshness.is_stale());
    following.stop().await;
}
