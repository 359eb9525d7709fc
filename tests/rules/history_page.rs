//! The pages `/days`, `/weeks` and `/months`, as a browser shows them.

use anyhow::{Context, Result, ensure};
use boundary_usage::{Database, Day, Purpose};
use boundary_usage_tests::browser::Browser;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::usage;
use chrono::{Days, Utc};
use serde_json::{Value, json};

use crate::http::{get, with_http};
use crate::page::{FAINT, with_commas};
use crate::program::{Serving, Workplace, one_socket};

/// The days with activity before today.
const DAYS: u64 = 70;

struct Scene {
    workplace: Workplace,
    _serving: Serving,
    /// Removes the database with the scene.
    _test: TestDatabase,
    address: String,
}

impl Scene {
    async fn new() -> Result<Self> {
        let test = TestDatabase::sqlite()?;
        fill(&test.connect().await?).await?;
        let workplace = Workplace::on(&test.url);
        let socket = one_socket(&workplace.path("audit.sock"), 1, 2);
        let serving = workplace.serve(1, with_http(socket, &["--no-collect"]));
        let address = serving.http();
        Ok(Self { workplace, _serving: serving, _test: test, address })
    }
}

/// Fills the history with days whose ids change slowly.
async fn fill(database: &Database) -> Result<()> {
    let today = Utc::now().date_naive();
    for number in 0..DAYS {
        let first = u128::from(number / 3);
        let day = Day {
            date: today - Days::new(DAYS - number),
            periods: 48,
            spans_midnight: false,
            allowed: 1_000 + 37 * number,
            denied: number % 9,
            uniques: usage::uniques(first..first + 12 + u128::from(number % 7), first / 2..first / 2 + 9),
        };
        let mut transaction = database.backend().begin(Purpose::Collection).await?;
        transaction.write_day(&day).await?;
        transaction.commit().await?;
    }
    Ok(())
}

const PAGES: [(&str, &str, &str); 3] = [("day", "days", "30"), ("week", "weeks", "16"), ("month", "months", "12")];

#[tokio::test]
async fn the_history_pages_show_the_numbers_of_the_report_without_javascript() -> Result<()> {
    let scene = Scene::new().await?;
    let mut browser = Browser::start(false)?;
    for (by, path, count) in PAGES {
        browser.open(&format!("http://{}/{path}", scene.address))?;
        let report = scene.workplace.json(["report", "--by", by, "--last", count]);
        let shown = browser.evaluate(
            "[...document.querySelectorAll('tr[data-window]')].map((row) =>
                [row.dataset.window, ...[...row.cells].slice(1).map((cell) => cell.textContent)])",
        )?;
        let rows = report["rows"].as_array().context("no rows")?.iter().rev();
        let expected = rows.map(|row| {
            let mut cells = vec![row["start"].clone()];
            for kind in ["users", "workspaces"] {
                let names = ["active", "new", "returning", "resurrected", "lost"];
                cells.extend(names.map(|name| json!(with_commas(&row[kind][name]))));
            }
            cells.extend(["allowed_requests", "denied_requests"].map(|name| json!(with_commas(&row[name]))));
            Value::from(cells)
        });
        assert_eq!(shown, Value::from(expected.collect::<Vec<_>>()), "{path}");
        ensure!(report["rows"].as_array().unwrap().iter().any(|row| row["users"]["active"] != 0), "nothing is shown");

        let retention = scene.workplace.json(["report", "--retention", "--by", by, "--last", count]);
        let cells = browser.evaluate(
            "[...document.querySelectorAll('.heat svg')].map((row) => [...row.querySelectorAll('title')]
                .map((title) => Number(title.textContent.match(/: ([0-9,]+) of/)[1].replaceAll(',', ''))))",
        )?;
        let cohorts = retention["cohorts"].as_array().context("no cohorts")?;
        let expected = ["users", "workspaces"].map(|kind| cohorts.iter().map(move |cohort| &cohort[kind]["active"]));
        let expected: Vec<_> = expected.into_iter().flatten().collect();
        assert_eq!(cells, json!(expected), "{path}");
        assert_eq!(browser.complaints(), [""; 0], "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn the_plots_of_the_history_are_as_high_as_their_numbers() -> Result<()> {
    let scene = Scene::new().await?;
    let mut browser = Browser::start(false)?;
    browser.open(&format!("http://{}/weeks", scene.address))?;
    let bars = browser.evaluate(
        "[...document.querySelectorAll('figure')].map((figure) => [figure.querySelector('b').innerText,
            [...figure.querySelectorAll('g')].map((slot) => [slot.querySelector('title').textContent,
                Math.round([...slot.querySelectorAll('rect:not(.slot)')]
                    .reduce((sum, bar) => sum + Number(bar.getAttribute('height')), 0))])])",
    )?;
    let report = scene.workplace.json(["report", "--by", "week", "--last", "16"]);
    let rows: Vec<_> = report["rows"].as_array().context("no rows")?.iter().rev().collect();
    for (place, (title, kind)) in [("Users", "users"), ("Workspaces", "workspaces")].into_iter().enumerate() {
        assert_eq!(bars[place][0], title);
        let numbers: Vec<_> = rows.iter().map(|row| row[kind]["active"].as_u64().unwrap()).collect();
        let heights: Vec<_> =
            bars[place][1].as_array().context("no bars")?.iter().map(|slot| slot[1].as_u64().unwrap()).collect();
        assert_eq!(numbers.len(), heights.len());
        // The scale ends at a round number, so the ratio of height and number is the same for all.
        let (largest, height) = numbers.iter().zip(&heights).max().context("no windows")?;
        for (number, shown) in numbers.iter().zip(&heights) {
            let expected = number * height / largest;
            ensure!(shown.abs_diff(expected) <= 1, "{title}: {number} has the height {shown} instead of {expected}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_history_pages_are_readable_in_light_and_dark_and_on_a_phone() -> Result<()> {
    let scene = Scene::new().await?;
    let mut browser = Browser::start(true)?;
    let pictures = std::env::var_os("PAGE_PICTURES").map(std::path::PathBuf::from);
    for (_, path, _) in PAGES {
        for (width, scheme) in [(1_100, "light"), (1_100, "dark"), (360, "light"), (320, "dark")] {
            browser.show(width, scheme)?;
            browser.open(&format!("http://{}/{path}", scene.address))?;
            let overflows = browser.evaluate("document.documentElement.scrollWidth > innerWidth")?;
            assert_eq!(overflows, json!(false), "{path} is wider than {width} pixels");
            assert_eq!(browser.evaluate(FAINT)?, json!([]), "{path}, {scheme}, {width} pixels");
            if let Some(directory) = &pictures {
                std::fs::write(directory.join(format!("{path}-{width}-{scheme}.png")), browser.picture()?)?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_history_pages_load_nothing_and_run_no_script() {
    let workplace = Workplace::new();
    let serving = workplace.serve(1, with_http(one_socket(&workplace.path("audit.sock"), 1, 2), &[]));
    for (_, path, _) in PAGES {
        let page = get(&serving.http(), &format!("/{path}"));
        assert_eq!(page.code, 200);
        let policy = page.head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
        assert!(!page.body.contains("<script") && !page.body.contains(" style="), "{}", page.body);
        for other in ["./", "days", "weeks", "months"] {
            assert!(page.body.contains(&format!("<a href=\"{other}\"")), "{other} is not linked");
        }
        assert!(page.body.contains(&format!("<a href=\"{path}\" aria-current=\"page\"")), "{}", page.body);
    }
    assert_eq!(get(&serving.http(), "/years").code, 404);
}
