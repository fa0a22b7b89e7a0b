package dev.turnout.worker;

/** Loads models of one kind. */
public interface ModelLoader {
    /**
     * Loads, checks and warms a version.
     *
     * @throws LoadFailed with the one-line reason; anything else thrown is reported with its class
     */
    ServedModel load(LoadRequest request) throws Exception;
}
