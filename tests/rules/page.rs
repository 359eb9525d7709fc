//! The page at `/`, as a browser shows it.
//!
//! `make page-pictures` sets PAGE_PICTURES to the directory where these tests save pictures of the page.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boundary_usage::{DeliveryClaim, Purpose, Summary};
use boundary_usage_cli::audit_socket::AuditClient;
use boundary_usage_tests::browser::Browser;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::usage::{self, update};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::http::get;
use crate::program::{Serving, Workplace, id, one_socket};

/// A database with a day of half-hour periods and three replicas, and a fourth replica that serves the page.
struct Scene {
    test: TestDatabase,
    workplace: Workplace,
    serving: Serving,
    url: String,
}

impl Scene {
    async fn new() -> Result<Self> {
        let test = TestDatabase::sqlite()?;
        fill(&test).await?;
        let workplace = Workplace::on(&test.url);
        let socket = workplace.path("audit.sock");
        let more = ["-v", "--no-collect", "--flush-interval", "500ms", "--listen", "127.0.0.1:0", "--replica", &id(1)];
        let mut serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(more.map(str::to_owned)));
        let mut client = AuditClient::connect(&socket).await?;
        for request in 0..120 {
            client.report(request % 16 != 0, "https://packages.example/index").await?;
        }
        client.finish().await?;
        serving.wait_for_log("Written");
        let url = format!("http://{}/", serving.http());
        Ok(Self { test, workplace, serving, url })
    }
}

/// The error of a failed delivery, with markup that the page must escape.
const REFUSED: &str = "the receiver returned 503 Service Unavailable: <down for maintenance>";

/// Fills the database with a realistic day: low usage at night and high usage by day.
async fn fill(test: &TestDatabase) -> Result<()> {
    let database = test.connect().await?;
    let backend = database.backend();
    let half_hour = TimeDelta::minutes(30);
    let mut start = Utc::now() - TimeDelta::minutes(17) - half_hour * 48;
    for period in 0..48_u64 {
        let day = 1.0 + ((period as f64 - 12.0) / 7.6).sin();
        let wobble = (period * 7919 % 13) as f64 / 13.0;
        let requests = (2_600.0 + 6_800.0 * day + 1_900.0 * wobble) as u64;
        let workspaces = (9.0 + 29.0 * day + 8.0 * wobble) as u64;
        let summary = Summary {
            unique_workspaces: workspaces,
            unique_users: workspaces * 6 / 10,
            allowed_requests: requests,
            denied_requests: requests / (11 + period % 9),
            period_start: start,
            period_duration_ms: half_hour.num_milliseconds() as u64,
            replicas: 3,
            ..Summary::default()
        };
        let mut transaction = backend.begin(Purpose::Collection).await?;
        let id = transaction.insert_period(&summary).await?;
        transaction.commit().await?;
        // The last two remain undelivered.
        if period < 46 {
            database.acknowledge(id).await?;
        }
        start += half_hour;
    }
    let DeliveryClaim::Claimed(delivery) = database.claim_delivery(Duration::from_secs(30)).await? else {
        bail!("no summary is due")
    };
    database.delivery_failed(&delivery, REFUSED, Duration::from_secs(64)).await?;
    for (replica, flush, ids, allowed, denied, ago) in
        [(2, 4_821, 0..31, 5_127, 246, 9), (3, 4_377, 22..50, 4_868, 201, 41), (4, 911, 47..57, 2_734, 133, 52)]
    {
        usage::flush(backend.as_ref(), usage::id(replica), &update(flush, ids, allowed, denied)).await?;
        test.execute(&format!(
            "UPDATE boundary_usage_replicas SET flushed_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-{ago} seconds')
             WHERE replica_id = '{}'",
            usage::id(replica)
        ))
        .await?;
    }
    database.close().await;
    Ok(())
}

/// Returns the number with commas, in the format of the page.
pub(crate) fn with_commas(number: &Value) -> String {
    let digits = number.to_string().into_bytes();
    let groups: Vec<_> = digits.rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[tokio::test]
async fn the_page_shows_the_database_with_and_without_javascript() -> Result<()> {
    let scene = Scene::new().await?;
    let status = scene.workplace.json(["status"]);
    for javascript in [true, false] {
        let mut browser = Browser::start(javascript)?;
        browser.open(&scene.url)?;
        let values = "['workspaces', 'users', 'allowed', 'denied'].map((id) => document.getElementById(id))";
        let so_far = &status["so_far"];
        let names = ["unique_workspaces", "unique_users", "allowed_requests", "denied_requests"];
        let shown = browser.evaluate(&format!("{values}.map((number) => [number.value, number.innerText])"))?;
        let expected = names.map(|name| json!([so_far[name].to_string(), with_commas(&so_far[name])]));
        assert_eq!(shown, json!(expected), "with JavaScript: {javascript}");
        ensure!(
            so_far["unique_workspaces"] == 58 && so_far["allowed_requests"] == 12_841,
            "unexpected scene: {so_far}"
        );

        let rows = browser.evaluate(
            "[...document.querySelectorAll('tr[data-replica]')].map((row) =>
                [row.dataset.replica, ...[...row.cells].slice(2).map((cell) => cell.textContent)]).sort()",
        )?;
        let expected = status["replicas"].as_array().context("no replicas")?.iter().map(|replica| {
            let row =
                status["rows"].as_array().unwrap().iter().find(|row| row["replica"] == replica["replica"]).unwrap();
            let mut cells = vec![replica["replica"].clone(), json!(with_commas(&replica["last_flush"]))];
            cells.extend(names.map(|name| json!(with_commas(&row[name]))));
            Value::from(cells)
        });
        assert_eq!(rows, Value::from(expected.collect::<Vec<_>>()), "with JavaScript: {javascript}");

        let periods = browser.evaluate(
            "[...document.querySelectorAll('tr[data-period]')].map((row) =>
                [row.dataset.period, ...[...row.cells].slice(2).map((cell) => cell.textContent)])",
        )?;
        let titles =
            browser.evaluate("[...document.querySelectorAll('svg title')].map((title) => title.textContent)")?;
        let closed = status["periods"].as_array().context("no periods")?;
        assert_eq!((closed.len(), titles.as_array().map(Vec::len)), (48, Some(2 * 48)));
        for (place, period) in closed.iter().enumerate() {
            let number = |name: &str| with_commas(&period[name]);
            let mut cells = vec![period["period_id"].to_string()];
            cells.extend(names.iter().chain(&["replicas"]).map(|name| number(name)));
            assert_eq!(periods[place], json!(cells));
            let requests = format!("{} allowed, {} denied", number("allowed_requests"), number("denied_requests"));
            let uniques = format!("{} workspaces, {} users", number("unique_workspaces"), number("unique_users"));
            for (title, text) in [(&titles[place], requests), (&titles[48 + place], uniques)] {
                assert!(title.as_str().unwrap().ends_with(&text), "{title} does not end with {text}");
            }
        }
        assert_eq!(browser.complaints(), [""; 0], "with JavaScript: {javascript}");
    }
    Ok(())
}

#[tokio::test]
async fn the_page_shows_undelivered_summaries_and_their_delivery_attempts() -> Result<()> {
    let scene = Scene::new().await?;
    let mut browser = Browser::start(false)?;
    browser.open(&scene.url)?;
    let shown = browser.evaluate(
        "[...document.querySelectorAll('[data-undelivered]')]
            .map((item) => [item.dataset.undelivered, item.innerText])",
    )?;
    let status = scene.workplace.json(["status"]);
    let closed = status["periods"].as_array().context("no periods")?;
    let undelivered: Vec<_> = closed.iter().rev().filter(|period| period["delivered_at"].is_null()).collect();
    assert_eq!((undelivered.len(), shown.as_array().map(Vec::len)), (2, Some(2)));
    assert_eq!(browser.evaluate("document.getElementById('undelivered-count').innerText")?, json!("2"));
    for (place, (period, attempts)) in undelivered.into_iter().zip(["1 attempt, last ", "not tried yet"]).enumerate() {
        assert_eq!(shown[place][0], json!(period["period_id"].to_string()));
        ensure!(shown[place][1].as_str().is_some_and(|text| text.contains(attempts)), "{}", shown[place]);
    }
    ensure!(shown[0][1].as_str().is_some_and(|text| text.contains(REFUSED)), "{}", shown[0]);
    Ok(())
}

#[tokio::test]
async fn the_page_updates_without_a_reload_and_shows_when_it_cannot() -> Result<()> {
    let scene = Scene::new().await?;
    let mut browser = Browser::start(true)?;
    browser.open(&scene.url)?;
    browser.evaluate("document.getElementById('period-numbers').open = true")?;
    let database = scene.test.connect().await?;
    usage::flush(database.backend().as_ref(), usage::id(5), &update(1, 100..107, 1_000, 0)).await?;
    browser.wait_until("document.getElementById('allowed').value === '13841'")?;
    assert_eq!(browser.evaluate("document.getElementById('workspaces').innerText")?, json!("65"));
    assert_eq!(
        browser.evaluate("document.getElementById('period-numbers').open")?,
        json!(true),
        "an open section stays open"
    );
    assert_eq!(browser.complaints(), [""; 0]);
    assert_eq!(browser.evaluate("getComputedStyle(document.getElementById('lost')).display")?, json!("none"));
    scene.serving.kill();
    browser.wait_until("document.body.classList.contains('lost')")?;
    assert_eq!(browser.evaluate("getComputedStyle(document.getElementById('lost')).display")?, json!("block"));
    assert_eq!(browser.evaluate("document.getElementById('allowed').value")?, json!("13841"), "the last numbers stay");
    Ok(())
}

#[tokio::test]
async fn text_from_the_database_is_escaped_on_the_page() -> Result<()> {
    let evil = "</li></ul><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&amp;";
    let test = TestDatabase::postgres().await?;
    test.connect().await?.close().await;
    let quoted = evil.replace('\'', "''");
    test.execute(&format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{quoted}'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON boundary_usage_stats FOR EACH ROW EXECUTE FUNCTION refuse();"
    ))
    .await?;
    let workplace = Workplace::on(&test.url);
    let socket = workplace.path("audit.sock");
    let more = ["--flush-interval", "20ms", "--listen", "127.0.0.1:0"].map(str::to_owned);
    let mut serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(more));
    send_and_hang_up(&socket, SESSION);
    serving.wait_for_log("flush failed");
    for javascript in [true, false] {
        let mut browser = Browser::start(javascript)?;
        browser.open(&format!("http://{}/", serving.http()))?;
        let faults = browser.evaluate("document.getElementById('fault-list').innerText")?;
        ensure!(faults.as_str().is_some_and(|faults| faults.contains(evil)), "{faults}");
        ensure!(faults.as_str().is_some_and(|faults| faults.contains("8 logs since the start")), "{faults}");
        assert_eq!(browser.evaluate("[document.title, document.images.length]")?, json!(["Boundary usage", 0]));
        assert_eq!(browser.complaints(), [""; 0]);
    }
    serving.kill();
    Ok(())
}

/// Returns the texts with a contrast below 4.5 to 1 (WCAG 2.2, level AA).
pub(crate) const FAINT: &str = "(() => {
    const linear = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const channel = (value) => linear(value / 255);
    const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const ground = (element) => {
        for (; element; element = element.parentElement) {
            const colour = numbers(getComputedStyle(element).backgroundColor);
            if (colour.length === 3 || colour[3] > 0) return colour;
        }
    };
    const faint = [];
    const texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.closest('svg')) continue;
        const [a, b] = [numbers(getComputedStyle(element).color), ground(element)].map(light).sort((x, y) => x - y);
        if ((b + 0.05) / (a + 0.05) < 4.5) faint.push(texts.currentNode.data.trim());
    }
    return faint;
})()";

#[tokio::test]
async fn the_page_is_readable_in_light_and_dark_and_on_a_phone() -> Result<()> {
    let scene = Scene::new().await?;
    let mut browser = Browser::start(true)?;
    let pictures = std::env::var_os("PAGE_PICTURES").map(std::path::PathBuf::from);
    let mut grounds = Vec::new();
    for (width, scheme, name) in [(1_100, "light", "page"), (1_100, "dark", "page-dark"), (360, "light", "page-phone")]
    {
        browser.show(width, scheme)?;
        browser.open(&scene.url)?;
        let overflows = browser.evaluate("document.documentElement.scrollWidth > innerWidth")?;
        assert_eq!(overflows, json!(false), "the page is wider than {width} pixels");
        assert_eq!(browser.evaluate(FAINT)?, json!([]), "{scheme}, {width} pixels");
        grounds.push(browser.evaluate("getComputedStyle(document.body).backgroundColor")?);
        let picture = browser.picture()?;
        ensure!(picture.starts_with(b"\x89PNG"), "not a picture");
        if let Some(directory) = &pictures {
            std::fs::write(directory.join(name).with_extension("png"), picture)?;
        }
    }
    ensure!(grounds[0] != grounds[1] && grounds[0] == grounds[2], "{grounds:?}");
    Ok(())
}

#[test]
fn the_page_loads_nothing_external_and_its_policy_forbids_it() {
    let workplace = Workplace::new();
    let listen = ["--listen", "127.0.0.1:0"].map(str::to_owned);
    let serving = workplace.serve(1, one_socket(&workplace.path("audit.sock"), 1, 2).into_iter().chain(listen));
    let [first, second] = [(); 2].map(|()| get(&serving.http(), "/"));
    let policy = first.head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(nonce.len() >= 32 && !second.body.contains(nonce), "a nonce is used only once");
    for part in
        ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(first.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "one style and one script");
    let urls = first.body.split(['"', '\'', '(']).filter(|text| text.contains("//") && text.starts_with("http"));
    assert_eq!(urls.collect::<Vec<_>>(), ["http://www.w3.org/2000/svg"], "the namespace of SVG is not a link");
    assert!(!first.body.contains(" style=") && !first.body.contains(" onclick="));
}
