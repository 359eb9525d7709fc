//! The command `prune`, and the daily pruning of `serve`.

use anyhow::{Result, ensure};
use boundary_usage::CollectOptions;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::on_each_database;
use boundary_usage_tests::usage::{flush, id, update};
use serde_json::json;

use crate::program::{Ended, Workplace, one_socket};

/// Creates an old period, an idle replica, an old day, and new ones of each. The open period began two days ago.
async fn fill(test: &TestDatabase) -> Result<()> {
    let database = test.connect().await?;
    for replica in [1, 2] {
        flush(database.backend().as_ref(), id(replica), &update(1, 0..3, 5, 2)).await?;
        database.collect(CollectOptions::default()).await?;
    }
    database.collect(CollectOptions::default()).await?;
    database.acknowledge(1).await?;
    for (period, days) in [(1, 1_200), (2, 3), (3, 2)] {
        let end = test.days_ago(days);
        test.execute(&format!(
            "UPDATE boundary_usage_periods SET period_end = {end}, period_start = {end} WHERE period_id = {period}"
        ))
        .await?;
    }
    let (idle, replica) = (test.days_ago(91), id(1));
    test.execute(&format!("UPDATE boundary_usage_replicas SET flushed_at = {idle} WHERE replica_id = '{replica}'"))
        .await?;
    let old_day = if test.is_postgres { "current_date - 1200" } else { "date('now', '-1200 days')" };
    test.execute(&format!("UPDATE boundary_usage_days SET day = {old_day}")).await?;
    database.close().await;
    Ok(())
}

/// Returns the numbers of periods, replicas and days.
async fn sizes(test: &TestDatabase) -> Result<[i64; 3]> {
    let mut sizes = [0; 3];
    for (table, size) in ["periods", "replicas", "days"].into_iter().zip(&mut sizes) {
        *size = test.number(&format!("SELECT count(*) FROM boundary_usage_{table}")).await?;
    }
    Ok(sizes)
}

const LIMITS: [&str; 6] = ["--periods-older-than", "400d", "--replicas-idle-for", "90d", "--days-older-than", "1100d"];

on_each_database! {
    async fn prune_reports_what_it_deletes_and_a_dry_run_deletes_nothing(test) {
        fill(&test).await?;
        let workplace = Workplace::on(&test.url);
        let prune = |more: &[&str]| -> Ended {
            workplace.command(["prune"].iter().chain(&LIMITS).chain(more)).output().unwrap().into()
        };
        let counts = json!({"periods": 1, "undelivered_kept": 0, "replicas": 1, "days": 1, "dry_run": true});
        assert_eq!(prune(&["--dry-run", "--format", "json"]).json(), counts);
        let text = prune(&["--dry-run"]).stdout;
        ensure!(text == "would delete 1 periods, 1 replicas and 1 days\n", "{text}");
        assert_eq!(sizes(&test).await?, [3, 2, 1]);
        let text = prune(&[]).stdout;
        ensure!(text == "deleted 1 periods, 1 replicas and 1 days\n", "{text}");
        assert_eq!(sizes(&test).await?, [2, 1, 0]);
        let again = prune(&["--format", "json"]).json();
        assert_eq!(again, json!({"periods": 0, "undelivered_kept": 0, "replicas": 0, "days": 0, "dry_run": false}));
        // The export and the report know the pruned day.
        let exported = workplace.json(["export", "--what", "pruned-days"]);
        assert_eq!(exported["pruned_days"][0]["unique_users"], 3);
        let report = workplace.json(["report", "--last", "1"]);
        assert_eq!(report["last_pruned_day"], exported["pruned_days"][0]["day"]);
        let csv = workplace.run(["report", "--from", "2020-01-01", "--to", "2020-01-02", "--format", "csv"]).stdout;
        ensure!(csv.contains("\n2020-01-01,2020-01-02,true,false,true,"), "{csv}");
        for arguments in [vec!["report"], vec!["report", "--retention"]] {
            let report: Ended = workplace.command(arguments.iter().chain(&["--from", "2020-01-01"])).output()?.into();
            let text = report.stdout;
            ensure!(text.contains("2020-01-01<") && text.contains("pruned days (until"), "{text}");
        }
        Ok(())
    }

    async fn undelivered_periods_are_kept_and_reported_unless_requested(test) {
        fill(&test).await?;
        test.execute("UPDATE boundary_usage_periods SET delivered_at = NULL").await?;
        let workplace = Workplace::on(&test.url);
        let text = workplace.run(["prune", "--periods-older-than", "400d"]).stdout;
        ensure!(text.contains("kept 1 old undelivered periods; --undelivered deletes them, too"), "{text}");
        assert_eq!(sizes(&test).await?[0], 3);
        let pruned = workplace.json(["prune", "--periods-older-than", "400d", "--undelivered"]);
        assert_eq!((&pruned["periods"], sizes(&test).await?[0]), (&json!(1), 2));
        Ok(())
    }

    async fn serve_deletes_idle_replicas_by_default_and_nothing_else(test) {
        fill(&test).await?;
        let workplace = Workplace::on(&test.url);
        let mut serving = workplace.serve(1, one_socket(&workplace.path("audit.sock"), 1, 2));
        serving.wait_for_log("pruned");
        serving.stop().json();
        // The collection of the open period, which ended a day, closed another period.
        assert_eq!(sizes(&test).await?, [4, 1, 1]);
        Ok(())
    }

    async fn serve_prunes_as_its_settings_require(test) {
        fill(&test).await?;
        let workplace = Workplace::on(&test.url);
        let settings = ["--prune-periods-older-than", "400d", "--prune-days-older-than", "1100d"];
        let none = ["--prune-replicas-idle-for", "none", "--prune-undelivered"];
        let arguments = settings.into_iter().chain(none).map(str::to_owned);
        let socket = one_socket(&workplace.path("audit.sock"), 1, 2);
        let mut serving = workplace.serve(1, socket.into_iter().chain(arguments));
        serving.wait_for_log(" periods=1 ");
        serving.stop().json();
        assert_eq!(sizes(&test).await?, [3, 2, 0]);
        Ok(())
    }

    async fn serve_does_not_prune_after_other_periods(test) {
        fill(&test).await?;
        let now = test.days_ago(0);
        test.execute(&format!("UPDATE boundary_usage_periods SET period_end = {now} WHERE period_id = 3")).await?;
        let workplace = Workplace::on(&test.url);
        let arguments = ["--collect-interval", "100ms"].map(str::to_owned);
        let socket = one_socket(&workplace.path("audit.sock"), 1, 2);
        let mut serving = workplace.serve(1, socket.into_iter().chain(arguments));
        for _ in 0..2 {
            serving.wait_for_log("collected");
        }
        let ended = serving.stop();
        ensure!(!ended.stderr.contains("prun"), "{}", ended.stderr);
        assert_eq!(sizes(&test).await?[1], 2);
        Ok(())
    }
}

#[test]
fn prune_creates_no_database() {
    let workplace = Workplace::new();
    for dry_run in [&[][..], &["--dry-run"]] {
        let mut command = workplace.command(["prune", "--replicas-idle-for", "90d"]);
        let ended: Ended = command.args(dry_run).output().unwrap().into();
        ended.assert_failed(1, "there is no database file");
    }
    assert!(workplace.files().is_empty(), "{:?}", workplace.files());
}

#[tokio::test]
async fn a_prune_that_cannot_be_printed_reports_what_it_deleted() -> Result<()> {
    let test = TestDatabase::sqlite()?;
    fill(&test).await?;
    let full_disk = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let workplace = Workplace::on(&test.url);
    let mut command = workplace.command(["prune", "--replicas-idle-for", "90d"]);
    let ended: Ended = command.stdout(full_disk).output()?.into();
    ended.assert_failed(1, "cannot write to stdout, but deleted 0 periods, 1 replicas and 0 days");
    Ok(())
}
