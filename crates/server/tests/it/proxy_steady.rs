//! What the front door serves while the API server is away: all that it knows until its table is too old, and not one
//! request to a tool after that.

use std::time::Duration;

use crate::proxy_api::{Api, tool};
use crate::proxy_front::{Pod, certificates, full, soon};
use crate::proxy_live::{Live, Setting, ask, open};

#[tokio::test(flavor = "multi_thread")]
async fn a_door_without_news_serves_until_its_table_is_too_old_and_again_after() {
    let (api, (tls, roots)) = (Api::start().await, certificates());
    let steady = Pod::start(|_| async { http::Response::new(full("steady")) }).await;
    for (plural, object) in tool("a", steady.address) {
        api.put(plural, object).await;
    }
    let stale_after = Duration::from_secs(1);
    let live = Live::start(&Setting { api: &api, state: None, stale_after, tls });
    soon(live.freshness.completed()).await;
    let mut sender = soon(open(live.https, &roots)).await.unwrap();
    api.set_away(true);
    let last = live.freshness.oldest().unwrap();
    // Not one request fails while the table may be dialled from, and not one reaches the tool after.
    let (mut served, mut refused) = (0, 0);
    while refused < 100 {
        let before = steady.count();
        let (response, _) = soon(ask(&mut sender, "GET", "a", "")).await.unwrap();
        if response.status() == 200 {
            assert_eq!(refused, 0);
            served += 1;
        } else {
            assert!(last.elapsed() > stale_after, "{response:?}");
            assert!(response.headers()["proxy-status"].to_str().unwrap().contains("stale"), "{response:?}");
            assert_eq!((response.status().as_u16(), steady.count()), (503, before));
            refused += 1;
        }
    }
    assert!(served > 0);
    // It lists anew, which is news.
    api.cut(true);
    api.set_away(false);
    soon(async { while ask(&mut sender, "GET", "a", "").await.unwrap().0.status() != 200 {} }).await;
    live.kill().await;
}
