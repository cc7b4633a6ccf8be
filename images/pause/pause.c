/* The first process of every pod: it holds the pod's namespaces, collects orphans, and ends when told to. */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

/* Collects every child that has ended; orphans of the pod's containers become ours where the namespace is shared. */
static void reap(int signal) {
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

static void stop(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    struct sigaction on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    struct sigaction on_stop = {.sa_handler = stop};
    if (sigaction(SIGCHLD, &on_child, NULL) != 0 || sigaction(SIGTERM, &on_stop, NULL) != 0 ||
        sigaction(SIGINT, &on_stop, NULL) != 0) {
        return 1;
    }
    for (;;) {
        pause();
    }
}
