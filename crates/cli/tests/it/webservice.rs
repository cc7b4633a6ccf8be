//! `webservice`: every action, and what it says and ends with.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::webservice_api::{Api, World};
use crate::webservice_door::{Door, own_page};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/tool-wikibot/deployments/wikibot";
const SERVICE: &str = "/api/v1/namespaces/tool-wikibot/services/wikibot";
const INGRESS: &str = "/apis/networking.k8s.io/v1/namespaces/tool-wikibot/ingresses/wikibot-subdomain";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/tool-wikibot/endpointslices/wikibot-1";
const POD: &str = "/api/v1/namespaces/tool-wikibot/pods/wikibot-1";
const TYPES: &str = "/api/v1/namespaces/hearth-public/configmaps/image-config";

/// The tool's own host.
const HOST: &str = "wikibot.hearth.localhost";

/// The number of the tool in these tests, where they run as root and may choose it.
const UID: u32 = 50001;

/// A tool with a home, a kubeconfig and a cluster.
struct Tool {
    api: Api,
    door: Door,
    root: TempDir,
}

/// How a run ended.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

/// The program under test, where an account without rights may run it.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, program) = PROGRAM.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = folder.path().join("webservice");
        std::fs::copy(env!("CARGO_BIN_EXE_webservice"), &program).unwrap();
        (folder, program)
    });
    program
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Tool {
    fn new() -> Self {
        let (api, door, root) = (Api::new(), Door::new(HOST), tempfile::tempdir().unwrap());
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(root.path().join("ca.crt"), &door.certificate).unwrap();
        let tool = Self { api, door, root };
        let types = "static: {image: r.example/hearth/static, state: stable, requires: [public_html/]}\n\
                     python3.11: {image: r.example/hearth/python3.11, state: stable}\n\
                     old: {image: r.example/hearth/old, state: deprecated, until: 2027-06-30}\n";
        tool.api.world(|world| world.put(TYPES, json!({"metadata": {}, "data": {"images-v1.yaml": types}})));
        tool.make_home();
        tool
    }

    fn make_home(&self) {
        let home = self.home();
        for folder in ["public_html", ".kube"] {
            std::fs::create_dir_all(home.join(folder)).unwrap();
        }
        let kubeconfig = json!({
            "current-context": "mine",
            "contexts": [
                {"name": "mine", "context": {"cluster": "elsewhere", "user": "me"}},
                {"name": "toolforge", "context": {"cluster": "toolforge", "user": "tf-wikibot"}},
            ],
            "clusters": [{"name": "toolforge", "cluster": {
                "server": format!("http://{}", self.api.address), "insecure-skip-tls-verify": true,
            }}],
            "users": [{"name": "tf-wikibot", "user": {}}],
        });
        self.write(".kube/config", &kubeconfig.to_string());
        let platform = format!(
            "[domains]\npublic = [\"hearth.localhost\"]\nlegacy = \"tools.hearth.localhost\"\n\
             [front_door]\naddress = \"{}\"\n\
             [api]\nserver = \"https://10.88.0.2:6443\"\n\
             [directory]\nurl = \"ldaps://ldap.example\"\nbase = \"dc=example\"\nbind_dn = \"cn=reader\"\n\
             [registry]\nhost = \"r.example\"\n[homes]\nroot = \"{}\"\n[tools]\nfirst_uid = {}\n",
            self.door.address,
            self.root.path().display(),
            if is_root() { 50000 } else { 1000 },
        );
        std::fs::write(self.root.path().join("platform.toml"), platform).unwrap();
        if is_root() {
            chown(&home, Some(UID), Some(UID)).unwrap();
        }
    }

    fn home(&self) -> PathBuf {
        self.root.path().join("wikibot")
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.home().join(file), text).unwrap();
    }

    fn manifest(&self) -> String {
        std::fs::read_to_string(self.home().join("service.manifest")).unwrap_or_default()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(program());
        command.args(line.split(' ')).env_clear().env("HEARTH_TOOL", "wikibot").current_dir("/");
        command.env("HEARTH_PLATFORM", self.root.path().join("platform.toml"));
        command.env("HEARTH_CA", self.root.path().join("ca.crt"));
        if is_root() {
            command.uid(UID).gid(UID);
        }
        command
    }

    fn run(&self, line: &str) -> Ended {
        ended(self.command(line))
    }

    /// Lets the web service run already, as this command would have made it.
    fn running(self) -> Self {
        self.api.world(|world| world.once_watched(come_up));
        let ended = self.run("static start");
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        self.api.world(|world| world.once_watched(|_| ()));
        self
    }
}

fn ended(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// What a healthy cluster does with an applied Deployment.
fn come_up(world: &mut World) {
    world.change(DEPLOYMENT, |deployment| {
        let replicas = deployment["spec"]["replicas"].clone();
        deployment["status"] = json!({
            "observedGeneration": deployment["metadata"]["generation"], "replicas": replicas,
            "updatedReplicas": replicas, "availableReplicas": replicas,
        });
    });
    let endpoint = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": true}});
    world.put(SLICE, json!({"metadata": {}, "addressType": "IPv4", "endpoints": [endpoint], "ports": []}));
}

/// What a cluster does with a Deployment whose only pod's container is in this state.
fn stay_down(world: &mut World, mut container: Value) {
    world.change(DEPLOYMENT, |deployment| {
        deployment["status"] = json!({
            "observedGeneration": deployment["metadata"]["generation"], "replicas": 1, "updatedReplicas": 1,
        });
    });
    let rest = json!({"name": "webservice", "image": "i", "imageID": "", "restartCount": 3, "ready": false});
    container.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    world.put(POD, json!({"metadata": {}, "status": {"containerStatuses": [container]}}));
}

fn crash_loop() -> Value {
    json!({
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}},
    })
}

#[track_caller]
fn has(text: &str, expected: &str) {
    assert!(text.contains(expected), "expected {expected:?} in:\n{text}");
}

// === start ===

#[test]
fn start_makes_the_objects_and_ends_when_visitors_are_answered() {
    let tool = Tool::new();
    tool.write("service.manifest~", "left by an interrupted run of the original");
    tool.api.world(|world| world.once_watched(come_up));
    let ended = tool.run("--mem 1Gi static start -- --index home.html");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.stdout, "Your webservice of type static is running at https://wikibot.hearth.localhost/\n");
    has(&ended.stderr, "Starting webservice...");
    let deployment = tool.api.object(DEPLOYMENT).unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "r.example/hearth/static");
    let command = ["/usr/bin/webservice-runner", "--type", "static", "--port", "8000", "--index", "home.html"];
    assert_eq!(pod["containers"][0]["command"], json!(command));
    assert_eq!(pod["containers"][0]["resources"]["limits"]["memory"], "1Gi");
    if is_root() {
        assert_eq!(pod["securityContext"]["runAsUser"], UID);
    }
    assert_eq!(tool.api.object(SERVICE).unwrap()["spec"]["ports"][0]["port"], 8000);
    assert_eq!(tool.api.object(INGRESS).unwrap()["spec"]["rules"][0]["host"], "wikibot.hearth.localhost");
    let manifest = tool.manifest();
    has(&manifest, "version: 4\nbackend: kubernetes\nweb: static\nmemory: \"1Gi\"\n");
    has(&manifest, "web::extra_args: [\"--index\",\"home.html\"]\n");
}

#[test]
fn start_ends_when_the_tool_answers_at_the_front_door() {
    let tool = Tool::new();
    tool.api.world(|world| world.once_watched(come_up));
    tool.door.answer(3, &own_page("destination_unavailable", "unavailable"));
    let ended = tool.run("static start");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    has(&ended.stderr, "waiting for https://wikibot.hearth.localhost/");
    let heads = tool.door.heads();
    assert_eq!(heads.len(), 4, "{heads:?}");
    has(&heads[0], "host: wikibot.hearth.localhost\r\n");
    has(&heads[0], "user-agent: webservice/");
}

#[test]
fn a_front_door_that_shows_another_page_is_a_failure() {
    let check = |expected: &str, prepare: fn(&Tool)| {
        let tool = Tool::new();
        tool.api.world(|world| world.once_watched(come_up));
        prepare(&tool);
        let ended = tool.run("--timeout 5 static start");
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{}", ended.stderr);
        has(&ended.stderr, "type static runs, but https://wikibot.hearth.localhost/ does not answer: ");
        has(&ended.stderr, expected);
        // It is the visitors' view that is wrong; what was asked for is there.
        assert!(tool.api.object(DEPLOYMENT).is_some());
    };
    check("visitors see that its program gives no HTTP answer", |tool| {
        tool.door.answer(100, &own_page("http_protocol_error", "broken-answer"));
    });
    check("visitors see a page of the platform instead (stale); tell the platform's operators", |tool| {
        tool.door.answer(100, &own_page("proxy_internal_error", "stale"));
    });
    check("the front door cannot be asked: ", |tool| {
        let stranger = Door::new("elsewhere.example");
        std::fs::write(tool.root.path().join("ca.crt"), stranger.certificate).unwrap();
    });
}

#[test]
fn start_takes_settings_from_the_template() {
    let tool = Tool::new();
    tool.write("service.template", "type: python3.11\nreplicas: 2\ncolour: red\n");
    tool.api.world(|world| world.once_watched(come_up));
    let ended = tool.run("start");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    has(&ended.stderr, "contains unknown keys: colour");
    has(&ended.stdout, "of type python3.11 is running");
    assert_eq!(tool.api.object(DEPLOYMENT).unwrap()["spec"]["replicas"], 2);
}

#[test]
fn start_refuses_what_cannot_be_before_anything_is_made() {
    let tool = Tool::new();
    let check = |line: &str, expected: &str| {
        let ended = tool.run(line);
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{line}: {}", ended.stderr);
        has(&ended.stderr, expected);
    };
    check("start", "no type of web service is given, and none is remembered; say one, as in `webservice static start`");
    check("start", "type must be one of:\n  * python3.11\n  * static\n");
    check("php8.2 start", "'php8.2' is not a type of web service\ntype must be one of:");
    check("--backend gridengine static start", "it comes with the platform's grid");
    check("--replicas 0 static start", "0 replicas cannot be started");
    check("--template nowhere static start", "failed to read your template file (nowhere)");
    tool.write("service.template", "mem: 512m\n");
    check("static start", "contains errors:\nline 1, column 6: '512m' is not an amount of memory");
    tool.write("public_html/service.template", "");
    check("static start", "there is more than one template");
    for file in ["service.template", "public_html/service.template"] {
        std::fs::remove_file(tool.home().join(file)).unwrap();
    }
    std::fs::remove_dir(tool.home().join("public_html")).unwrap();
    check("static start", "the type 'static' needs the folder ~/public_html: make it, and start again");
    assert!(tool.api.requests("PATCH").is_empty());
    assert_eq!(tool.manifest(), "");
}

#[test]
fn start_of_a_deprecated_type_warns() {
    let tool = Tool::new();
    tool.api.world(|world| world.once_watched(come_up));
    let ended = tool.run("old start");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    has(&ended.stderr, "DEPRECATED: 'old' type is deprecated. It is kept until 2027-06-30.");
}

#[test]
fn start_of_what_runs_is_refused() {
    let tool = Tool::new().running();
    let ended = tool.run("static start");
    assert_eq!(ended.code, 1);
    has(&ended.stderr, "Your job is already running\n");
}

#[test]
fn a_crash_loop_is_explained_with_the_programs_last_words() {
    let tool = Tool::new();
    tool.api.world(|world| {
        world.says("first\nno module named app\n");
        world.once_watched(|world| stay_down(world, crash_loop()));
    });
    let ended = tool.run("static start");
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{}", ended.stderr);
    has(&ended.stderr, "does not come up: its program ends again and again, last with exit code 3.\nWhat to do: ");
    has(&ended.stderr, "The last lines of its log:\n    first\n    no module named app\n");
    has(&tool.manifest(), "web: static");
    let status = tool.run("status");
    assert_eq!(status.code, 3);
    has(&status.stdout, "Your webservice of type static is failing on backend kubernetes: its program ends again");
    has(&status.stdout, "\n    no module named app\n");
}

#[test]
fn a_used_up_quota_is_explained() {
    let tool = Tool::new();
    tool.api.world(|world| {
        world.once_watched(|world| {
            let message = "pods \"a\" is forbidden: exceeded quota: tool-wikibot, requested: pods=1, used: pods=10";
            world.change(DEPLOYMENT, |deployment| {
                deployment["status"] = json!({"conditions": [
                    {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message},
                ]});
            });
        });
    });
    let ended = tool.run("static start");
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    has(
        &ended.stderr,
        "the tool's quota is used up (tool-wikibot, requested: pods=1, used: pods=10).\nWhat to do: ask",
    );
}

#[test]
fn a_timeout_is_a_failure() {
    let tool = Tool::new();
    tool.api.world(|world| {
        world.says("thinking");
        world.once_watched(|world| stay_down(world, json!({"state": {"running": {}}, "started": false})));
    });
    let ended = tool.run("--timeout 1 static start");
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    has(&ended.stderr, "0 of 1 replicas answer after 1 s, its program does not yet accept connections on port 8000.");
    has(&ended.stderr, "\n    thinking\n");
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let tool = Tool::new();
    tool.api.world(|world| world.refuse("ingresses", 403, "admission webhook denied the request: not your host"));
    let ended = tool.run("static start");
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    has(&ended.stderr, "the platform refuses this: admission webhook denied the request: not your host");
    assert_eq!(tool.api.object(DEPLOYMENT), None);
    assert_eq!(tool.api.object(SERVICE), None);
    assert_eq!(tool.manifest(), "");
}

// === restart ===

#[test]
fn restart_replaces_the_pods_and_keeps_the_settings() {
    let tool = Tool::new().running();
    let started = |deployment: &Value| deployment["spec"]["template"]["metadata"]["annotations"].clone();
    let before = tool.api.object(DEPLOYMENT).unwrap();
    tool.api.world(|world| world.once_watched(come_up));
    let ended = tool.run("--mem 2Gi restart");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    has(&ended.stderr, "Restarting...");
    let after = tool.api.object(DEPLOYMENT).unwrap();
    assert_ne!(started(&before)["toolforge.org/started-at"], started(&after)["toolforge.org/started-at"]);
    assert_eq!(after["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    has(&tool.manifest(), "web: static\nmemory: \"2Gi\"\n");
    assert!(tool.api.requests("DELETE").is_empty());
}

#[test]
fn restart_knows_the_type_without_a_manifest_and_starts_what_is_stopped() {
    let tool = Tool::new().running();
    tool.write("service.manifest", "web: [damaged");
    tool.api.world(|world| world.once_watched(come_up));
    let ended = tool.run("restart");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    has(&ended.stderr, "service.manifest is damaged and is not used (line ");
    has(&tool.manifest(), "web: static\n");
    assert_eq!(tool.run("stop").code, 0);
    tool.api.world(|world| world.once_watched(come_up));
    let ended = tool.run("static restart");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    has(&ended.stderr, "Your webservice is not running; it is started.");
}

// === stop and status ===

#[test]
fn stop_removes_everything_and_forgets() {
    let tool = Tool::new().running();
    let ended = tool.run("stop");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "Your webservice is stopped\n"), "{}", ended.stderr);
    for path in [DEPLOYMENT, SERVICE, INGRESS] {
        assert_eq!(tool.api.object(path), None);
    }
    assert!(tool.manifest().ends_with("version: 4\n"), "{}", tool.manifest());
    let ended = tool.run("stop");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "Your webservice is not running\n"));
}

#[test]
fn what_others_made_is_left_alone() {
    let tool = Tool::new();
    tool.api.world(|world| world.put(SERVICE, json!({"metadata": {"labels": {"name": "wikibot"}}})));
    for line in ["stop", "static start", "static restart"] {
        let ended = tool.run(line);
        assert_eq!(ended.code, 1, "{line}");
        has(&ended.stderr, "the Service wikibot was not made by webservice, so it is left alone");
    }
    assert!(tool.api.requests("DELETE").is_empty() && tool.api.requests("PATCH").is_empty());
}

#[test]
fn status_costs_one_request_and_says_what_scripts_expect() {
    let tool = Tool::new();
    let ended = tool.run("status");
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "Your webservice is not running\n"), "{}", ended.stderr);
    let tool = tool.running();
    let before = tool.api.requests("").len();
    let ended = tool.run("status");
    let sentence = "Your webservice of type static is running on backend kubernetes\n";
    assert_eq!((ended.code, ended.stdout.as_str()), (0, sentence), "{}", ended.stderr);
    assert_eq!(tool.api.requests("").len(), before + 1);
}

// === who and where ===

#[test]
fn only_tools_may() {
    let tool = Tool::new();
    let mut command = tool.command("status");
    command.env_remove("HEARTH_TOOL").env("USER", "member1");
    let ended = ended(command);
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    has(&ended.stderr, "tools' accounts are named tools.TOOL; run `become TOOL` first");
    let platform = tool.root.path().join("platform.toml");
    let text = std::fs::read_to_string(&platform).unwrap();
    std::fs::write(&platform, text + "last_uid = 4200000000\n").unwrap();
    let text = std::fs::read_to_string(&platform).unwrap().replace("first_uid = ", "first_uid = 40000");
    std::fs::write(&platform, text).unwrap();
    let ended = tool.run("status");
    assert_eq!(ended.code, 5);
    has(&ended.stderr, "webservice is run by a tool, not by a person; run `become TOOL` first");
}

#[test]
fn the_account_names_the_tool() {
    let tool = Tool::new();
    let mut command = tool.command("status");
    command.env_remove("HEARTH_TOOL").env("LOGNAME", "tools.wikibot");
    assert_eq!(ended(command).stdout, "Your webservice is not running\n");
}

#[test]
fn a_name_that_cannot_be_used_is_explained() {
    let tool = Tool::new();
    let mut command = tool.command("static start");
    command.env_remove("HEARTH_TOOL").env("LOGNAME", "tools.old_bot");
    let ended = ended(command);
    assert_eq!(ended.code, 5);
    has(&ended.stderr, "web services are not available for this tool");
    has(&ended.stderr, "'old_bot'");
}

#[test]
fn a_cluster_that_is_away_is_named() {
    let tool = Tool::new();
    let kubeconfig = std::fs::read_to_string(tool.home().join(".kube/config")).unwrap();
    // A port that was free a moment ago and on which nothing listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    tool.write(".kube/config", &kubeconfig.replace(&tool.api.address.to_string(), &free.to_string()));
    let ended = tool.run("status");
    assert_eq!(ended.code, 4);
    has(&ended.stderr, &format!("the cluster at http://{free}/ cannot be reached ("));
    tool.write(".kube/config", "not: [a kubeconfig");
    let ended = tool.run("status");
    assert_eq!(ended.code, 5);
    has(&ended.stderr, "/.kube/config is not usable: ");
}

#[test]
fn an_expired_certificate_is_explained() {
    let tool = Tool::new();
    tool.api.world(|world| world.refuse("/", 401, "Unauthorized"));
    let ended = tool.run("static start");
    assert_eq!(ended.code, 4);
    has(&ended.stderr, "the cluster does not accept the tool's certificate: it is expired or was revoked");
}
