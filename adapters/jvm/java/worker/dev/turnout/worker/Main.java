package dev.turnout.worker;

import java.io.IOException;
import java.io.InputStream;

/** The worker's command line. Standard output carries nothing: what models print there goes to standard error. */
public final class Main {
    static final String VERSION = "1";
    private static final String SPARK_LOADER = "dev.turnout.spark.SparkLoader";

    private Main() {}

    /** Runs until the parent is gone, asks to drain, or the model cannot be loaded. */
    public static void main(String[] arguments) throws Exception {
        System.setOut(System.err);
        Settings settings = Settings.of(arguments);
        Thread watch = new Thread(() -> exitWithParent(System.in), "turnout-parent");
        watch.setDaemon(true);
        watch.start();
        Scratch.prepare(settings.scratch());
        new Worker(settings, loader(settings.kind())).serve();
        // The thread that drains ends the process; this one must not return before, as all others are daemons.
        Thread.currentThread().join();
    }

    /** Ends the process at once: no shutdown hook of a library may delay it. */
    static void halt(int status) {
        System.err.flush();
        Runtime.getRuntime().halt(status);
    }

    static void sleep(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    private static ModelLoader loader(String kind) throws ReflectiveOperationException {
        return switch (kind) {
            case "spi" -> new SpiLoader();
            // Compiled apart, against the user's own Spark, hence by name.
            case "spark" -> (ModelLoader) Class.forName(SPARK_LOADER).getConstructor().newInstance();
            default -> throw new IllegalArgumentException("--kind must be spi or spark, got " + kind);
        };
    }

    private static void exitWithParent(InputStream parent) {
        try {
            while (parent.read() >= 0) {
                continue;
            }
        } catch (IOException error) {
            System.err.println("reading standard input: " + error);
        }
        halt(0);
    }
}
