//! A second instance beside the first: its own cluster, names and authority, and gone without a trace on the first.

use crate::platform::{Platform, SOON, eventually, platform, url};
use crate::platform_restart::interrupt_up_after;

#[test]
fn a_second_instance_runs_beside_the_first() {
    let (first, _calm) = platform();
    let second = Platform::at("/var/lib/hearth-test-beside", "127.0.53.3");
    second.purge();
    let _keeper = second.keep();
    // Its very first start is cut off again and again, and goes on where it was.
    for step in ["certificates and configuration", "network and node", "etcd, Kubernetes' API and containerd", "node"] {
        interrupt_up_after(&second, step);
    }
    second.up();

    // The same name on both is two tools, and what one has the other has not.
    for (instance, page) in [(first, "of the first"), (&second, "of the second")] {
        instance.tool("twin", "member1");
        instance.serve("twin", page);
    }
    second.tool("alone", "member2");
    assert_eq!(first.page("twin").body, "of the first\n");
    assert_eq!(second.page("twin").body, "of the second\n");
    assert_eq!((first.page("hello").status, second.page("hello").status), (200, 200));
    assert_eq!((first.page("alone").status, second.page("alone").status), (404, 503));
    let authorities = [first, &second].map(|instance| std::fs::read(instance.path("ca.crt")).unwrap());
    assert_ne!(authorities[0], authorities[1]);
    let kubeconfig = second.path("data/project/twin/.kube/config");
    let of_second = std::fs::read_to_string(&kubeconfig).unwrap();
    let of_first = std::fs::read_to_string(first.path("data/project/twin/.kube/config")).unwrap();
    let server = |text: &str| text.lines().find(|line| line.contains("server:")).map(str::to_owned);
    assert_ne!(server(&of_first), server(&of_second));

    second.hearth(&["down"]).says(0, &["Hearth is down"]);
    assert!(second.try_get(&url("hello")).is_err());
    let still = |what: &str| {
        assert_eq!(first.page("twin").body, "of the first\n", "{what}");
        first.as_tool("twin", "webservice restart").success(what);
        eventually(SOON, what, || first.try_get(&url("twin")));
    };
    still("the first, with the second down");
    second.purge();
    still("the first, with the second gone");
}
