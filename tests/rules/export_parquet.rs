//! The command `export`, as Parquet.

#[cfg(feature = "parquet")]
mod with_the_feature {
    use std::fs::File;

    use anyhow::Result;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use boundary_usage_tests::on_each_database;
    use chrono::{DateTime, Days, NaiveDate, SecondsFormat};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    use serde_json::{Value, json};

    use crate::export_command::{MANY_DAYS, fill, rows, workplace_with_many_days};
    use crate::program::{Ended, Workplace};

    /// Returns a value as it is in JSON.
    fn value(field: &Field) -> Value {
        match field {
            Field::Null => Value::Null,
            Field::Bool(flag) => json!(flag),
            Field::Long(number) => json!(number),
            Field::Date(days) => json!(NaiveDate::default() + Days::new(u64::try_from(*days).unwrap())),
            Field::TimestampMicros(time) => {
                let time = DateTime::from_timestamp_micros(*time).unwrap();
                json!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
            }
            Field::Bytes(bytes) => json!(STANDARD.encode(bytes.data())),
            Field::Str(text) => json!(text),
            other => panic!("unexpected type: {other:?}"),
        }
    }

    fn read(file: &SerializedFileReader<File>) -> Result<Vec<Value>> {
        let rows = file.get_row_iter(None)?.map(|row| {
            let columns = row?.into_columns();
            Ok(Value::Object(columns.into_iter().map(|(name, field)| (name, value(&field))).collect()))
        });
        rows.collect()
    }

    on_each_database! {
        async fn parquet_has_the_values_of_json(test) {
            let database = fill(&test).await?;
            let key_fingerprint = database.key_fingerprint().await?.to_string();
            let workplace = Workplace::on(&test.url);
            for (what, more) in [("days", &["--sketches"][..]), ("days", &[]), ("periods", &[])] {
                let arguments = ["export", "--format", "parquet", "--output", "usage.parquet", "--what", what];
                let ended: Ended = workplace.command(arguments).args(more).output()?.into();
                assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (0, "", ""));
                let mut expected = rows(&workplace, what, more);
                for row in &mut expected {
                    row["key_fingerprint"] = json!(key_fingerprint);
                }
                let file = SerializedFileReader::new(File::open(workplace.path("usage.parquet"))?)?;
                assert_eq!(read(&file)?, expected, "{what}");
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn many_days_are_written_in_several_row_groups() -> Result<()> {
        let workplace = workplace_with_many_days().await?;
        // The limit is 96 MiB, which is less than the sketches take. It suffices for few threads only.
        let arguments = ["export", "--sketches", "--format", "parquet", "--output", "days.parquet"];
        let mut command = workplace.command_after("ulimit -d 98304", arguments);
        Ended::from(command.env("TOKIO_WORKER_THREADS", "2").output()?).assert_succeeded();
        let file = SerializedFileReader::new(File::open(workplace.path("days.parquet"))?)?;
        assert!(file.metadata().num_row_groups() > 10, "{}", file.metadata().num_row_groups());
        assert_eq!(read(&file)?.len() as u64, MANY_DAYS);
        Ok(())
    }

    #[test]
    fn parquet_needs_a_file() {
        let workplace = Workplace::new();
        for output in [&[][..], &["--output", "-"]] {
            let ended: Ended =
                workplace.command(["export", "--format", "parquet"]).args(output).output().unwrap().into();
            ended.assert_failed(2, "--format parquet needs --output FILE");
        }
    }
}

#[cfg(not(feature = "parquet"))]
#[test]
fn without_the_feature_an_error_states_how_to_get_parquet() {
    let workplace = crate::program::Workplace::new();
    let ended = workplace.run(["export", "--format", "parquet", "--output", "days.parquet"]);
    ended.assert_failed(2, "this program was built without Parquet; build it with `make release`");
    assert!(workplace.files().is_empty(), "{:?}", workplace.files());
}
