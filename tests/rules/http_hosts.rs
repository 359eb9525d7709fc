//! HTTP accepts only a `Host` header with an address, `localhost` or an allowed name.
//!
//! So a page of another site cannot read the status, even if its name is rebound to this address.

use boundary_usage_tests::browser::Browser;

use crate::http::{get, send, with_http};
use crate::program::{Serving, Workplace, id, one_socket};

const PATHS: [&str; 6] = ["/", "/metrics", "/healthz", "/readyz", "/status.json", "/nowhere"];

fn serving(workplace: &Workplace, more: &[&str]) -> Serving {
    workplace.serve(1, with_http(one_socket(&workplace.path("audit.sock"), 1, 2), more))
}

fn code(address: &str, path: &str, host: &str) -> u16 {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).code
}

#[test]
fn the_host_of_another_machine_is_refused_on_every_path() {
    let workplace = Workplace::new();
    let serving = serving(&workplace, &[]);
    let address = serving.http();
    for path in PATHS {
        for host in [
            "evil.example",
            "evil.example:9464",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil.localhost.example",
            "0x7f000001",
            "2130706433",
            "127.1",
            "[::1",
            "::1",
            "[evil.example]",
            "localhost:port",
            "user@localhost",
            "",
        ] {
            let response = send(&address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert!(matches!(response.code, 400 | 421), "{path} {host:?}: {}", response.code);
            assert!(!response.body.contains("boundary_usage"), "{path} {host:?}: {}", response.body);
        }
    }
    let refused = send(&address, "GET /status.json HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(refused.code, 421);
    assert!(refused.body.contains("--allow-host"), "{}", refused.body);
    // The host in the request line is checked, too, and a second header does not hide the first one.
    for request in [
        "GET http://evil.example/status.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /status.json HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        "GET /status.json HTTP/1.1\r\n\r\n",
        "POST /status.json HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert!(matches!(send(&address, request).code, 400 | 421), "{request}");
    }
    serving.stop().json();
}

#[test]
fn addresses_and_localhost_are_accepted_with_any_port() {
    let workplace = Workplace::new();
    let serving = serving(&workplace, &[]);
    let address = serving.http();
    for host in [
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:65535",
        "10.1.2.3:9464",
        "[::1]",
        "[::1]:9464",
        "[2001:db8::7]:80",
    ] {
        assert_eq!(code(&address, "/healthz", host), 200, "{host}");
    }
    // A health check with HTTP/1.0 has no host. A browser always sends one.
    assert_eq!(send(&address, "GET /healthz HTTP/1.0\r\n\r\n").code, 200);
    serving.stop().json();
}

#[test]
fn hosts_that_a_flag_or_the_configuration_file_allows_are_accepted() {
    let workplace = Workplace::new();
    let flag = serving(&workplace, &["--allow-host", "usage.example.com", "--allow-host", "boundary-usage"]);
    let check = |address: &str| {
        for host in ["usage.example.com", "Usage.Example.Com:443", "boundary-usage:9464", "127.0.0.1"] {
            assert_eq!(code(address, "/metrics", host), 200, "{host}");
        }
        assert_eq!(code(address, "/metrics", "other.example.com"), 421);
    };
    check(&flag.http());
    flag.stop().json();

    let socket = format!("[[socket]]\npath = \"a.sock\"\nworkspace = \"{}\"\nowner = \"{}\"\n", id(1), id(2));
    let hosts = "listen = \"127.0.0.1:0\"\nallow-hosts = [\"usage.example.com\"]\n";
    workplace.write("serve.toml", &format!("{hosts}{socket}"));
    let file = workplace.serve(1, ["--config", "serve.toml", "--allow-host", "boundary-usage"]);
    check(&file.http());
    file.stop().json();

    for wrong in ["", "http://usage.example.com", "usage.example.com:9464", "*", "a b", "usage.example.com/"] {
        let mut command = workplace.command(["serve", "--listen", "127.0.0.1:0", "--allow-host", wrong]);
        let ended = command.args(one_socket(&workplace.path("b.sock"), 1, 2)).output().unwrap();
        crate::program::Ended::from(ended).assert_failed(2, "--allow-host");
    }
    for wrong in ["allow-hosts = \"usage.example.com\"", "allow-hosts = [7]", "allow-hosts = [\"a:1\"]"] {
        workplace.write("serve.toml", &format!("{wrong}\n{socket}"));
        workplace.run(["serve", "--config", "serve.toml"]).assert_failed(2, "`allow-hosts`");
    }
}

#[test]
fn a_page_whose_name_is_rebound_to_this_address_cannot_read_the_status() {
    let workplace = Workplace::new();
    let serving = serving(&workplace, &[]);
    let address = serving.http();
    let port = address.rsplit(':').next().unwrap();
    let rebound = ["--host-resolver-rules=MAP evil.example 127.0.0.1"];
    let mut browser = Browser::start_with(true, &rebound).unwrap();
    for (host, is_shown) in [(format!("evil.example:{port}"), false), (address.clone(), true)] {
        browser.open(&format!("http://{host}/status.json")).unwrap();
        let text = browser.evaluate("document.body.innerText").unwrap();
        assert_eq!(text.as_str().unwrap().contains("period_start"), is_shown, "{host}: {text}");
    }
    assert_eq!(get(&address, "/healthz").code, 200);
    serving.stop().json();
}
