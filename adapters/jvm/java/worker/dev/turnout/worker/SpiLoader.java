package dev.turnout.worker;

import dev.turnout.spi.Batch;
import dev.turnout.spi.InvalidInput;
import dev.turnout.spi.Model;
import dev.turnout.spi.Tensor;
import dev.turnout.spi.TensorSpec;
import java.io.IOException;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import java.util.Set;
import java.util.jar.JarFile;

/** Loads a model jar in a class loader of its own, which sees the JDK, the SPI and the version's jars. */
final class SpiLoader implements ModelLoader {
    private static final String MAIN = "main";
    private static final int WARM_CALLS = 2_000;
    private static final long WARM_NANOS = 500_000_000L;

    @Override
    public ServedModel load(LoadRequest request) throws Exception {
        URLClassLoader classes = new URLClassLoader("model", urls(request.settings().jars()), new SpiOnly());
        // Libraries look for their parts through the thread's own loader.
        Thread.currentThread().setContextClassLoader(classes);
        Model model = instance(classes, request.options().get(MAIN));
        model.load(request.directory(), request.options());
        List<TensorSpec> inputs = specs(model, "inputs", model.inputs());
        List<TensorSpec> outputs = specs(model, "outputs", model.outputs());
        Map<String, String> properties = new LinkedHashMap<>();
        properties.put("kind", "spi");
        properties.put("engine", "java " + Runtime.version());
        properties.put("class", model.getClass().getName());
        Description description = new Description(inputs, outputs, List.of(), properties);
        tryOn(model, new InputCheck(description), request.samples());
        return new SpiModel(model, classes, description);
    }

    /** Answers the samples for a while: to see that the model works, and to have its code compiled. */
    private static void tryOn(Model model, InputCheck check, Map<String, Tensor> samples) throws LoadFailed {
        Batch rows;
        try {
            rows = check.fit(new Batch(samples));
        } catch (InvalidInput error) {
            return; // no samples, or such as only fit once the gateway has cast them
        }
        long until = System.nanoTime() + WARM_NANOS;
        try {
            for (int at = 0; at < WARM_CALLS && (at == 0 || System.nanoTime() - until < 0); at++) {
                model.predict(rows);
            }
        } catch (Exception error) {
            throw new LoadFailed("the samples fail: " + Reasons.of(error), error);
        }
    }

    private static URL[] urls(List<Path> jars) throws LoadFailed, MalformedURLException {
        List<URL> urls = new ArrayList<>();
        for (Path jar : jars) {
            try (JarFile readable = new JarFile(jar.toFile())) {
                readable.size();
            } catch (IOException error) {
                throw new LoadFailed(jar.getFileName() + ": " + Reasons.of(error), error);
            }
            urls.add(jar.toUri().toURL());
        }
        return urls.toArray(URL[]::new);
    }

    private static Model instance(ClassLoader classes, String main) throws LoadFailed {
        if (main != null) {
            return named(classes, main);
        }
        try {
            List<ServiceLoader.Provider<Model>> found =
                    ServiceLoader.load(Model.class, classes).stream().toList();
            if (found.size() == 1) {
                return found.get(0).get();
            }
            List<String> names = found.stream().map(provider -> provider.type().getName()).toList();
            throw new LoadFailed(names.isEmpty()
                    ? "no model in the jars: META-INF/services/" + Model.class.getName() + " names none;"
                            + " name the class in options.main"
                    : "more than one model in the jars: " + names + "; choose one by options.main");
        } catch (ServiceConfigurationError error) {
            throw new LoadFailed(Reasons.of(error), error);
        }
    }

    private static Model named(ClassLoader classes, String main) throws LoadFailed {
        try {
            Object made = Class.forName(main, true, classes).getDeclaredConstructor().newInstance();
            if (made instanceof Model model) {
                return model;
            }
            throw new LoadFailed("options.main: " + main + " does not implement " + Model.class.getName());
        } catch (ReflectiveOperationException error) {
            throw new LoadFailed("options.main: " + Reasons.of(error), error);
        }
    }

    private static List<TensorSpec> specs(Model model, String half, List<TensorSpec> specs) throws LoadFailed {
        if (specs == null || specs.isEmpty()) {
            throw new LoadFailed(model.getClass().getName() + " declares no " + half);
        }
        Set<String> names = new HashSet<>();
        for (TensorSpec spec : specs) {
            if (!names.add(spec.name())) {
                throw new LoadFailed(model.getClass().getName() + " declares " + half + " '" + spec.name() + "' twice");
            }
        }
        return List.copyOf(specs);
    }

    /** Parent of model loaders: the JDK and the SPI, nothing else of the worker. */
    private static final class SpiOnly extends ClassLoader {
        private static final String PACKAGE = Model.class.getPackageName() + ".";

        SpiOnly() {
            super("spi", getPlatformClassLoader());
        }

        @Override
        protected Class<?> findClass(String name) throws ClassNotFoundException {
            if (name.startsWith(PACKAGE)) {
                return Model.class.getClassLoader().loadClass(name);
            }
            throw new ClassNotFoundException(name);
        }
    }

    private record SpiModel(Model model, URLClassLoader classes, Description description) implements ServedModel {
        @Override
        public Runner runner() {
            return inputs -> {
                Thread.currentThread().setContextClassLoader(classes);
                return model.predict(inputs);
            };
        }

        @Override
        public void close() throws Exception {
            model.close();
            classes.close();
        }
    }
}
