package dev.turnout.spark;

import java.nio.file.Path;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.spark.sql.SparkSession;

/** The worker's own Spark: one thread, no pages, nothing listening beyond loopback, nothing kept. */
final class Session {
    private static final String LOOPBACK = "127.0.0.1";

    private Session() {}

    static SparkSession start(Path scratch) {
        // Hadoop would ask the system for the user's name, and fail where the user has none, as in containers.
        UserGroupInformation.setLoginUser(UserGroupInformation.createRemoteUser("turnout"));
        return SparkSession.builder()
                .appName("turnout")
                .master("local[1]")
                .config("spark.driver.host", LOOPBACK)
                .config("spark.driver.bindAddress", LOOPBACK)
                .config("spark.local.dir", scratch.resolve("local").toString())
                .config("spark.sql.warehouse.dir", scratch.resolve("warehouse").toUri().toString())
                .config("spark.sql.catalogImplementation", "in-memory")
                .config("spark.ui.enabled", "false")
                .config("spark.ui.retainedJobs", "1")
                .config("spark.ui.retainedStages", "1")
                .config("spark.ui.retainedTasks", "1")
                .config("spark.sql.ui.retainedExecutions", "0")
                .config("spark.sql.shuffle.partitions", "1")
                .config("spark.default.parallelism", "1")
                .config("spark.sql.adaptive.enabled", "false")
                // Spark calls System.gc() in this interval, and every call would wait for it.
                .config("spark.cleaner.periodicGC.interval", "24h")
                .getOrCreate();
    }
}
