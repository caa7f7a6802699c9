/* A clock of the node's own: preloaded into every container of a node, it moves what the C library says is the time.

   The file SHIFT holds nanoseconds; all wall clocks are moved by it, at once. Monotonic clocks are left alone, as a step
   of the kernel's clock leaves them alone. A wait until a time of day is for the kernel, whose clock is not moved: its end
   is moved back. A wait that has begun is not moved by a later step. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef SHIFT
#define SHIFT "/run/bed-clock"
#endif
#define SECOND 1000000000LL
/* Later than any time since boot, earlier than any time of day here. */
#define TIME_OF_DAY 300000000LL
#define NEVER (1LL << 40)

#ifdef __x86_64__
#define CONDITIONS "GLIBC_2.3.2"
#else
#define CONDITIONS "GLIBC_2.17"
#endif

static int64_t shift_of_node(void) {
  static const volatile int64_t *shift;
  if (!shift) {
    static const int64_t none;
    int file = open(SHIFT, O_RDONLY | O_CLOEXEC);
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    shift = mapped == MAP_FAILED ? &none : mapped;
  }
  return *shift;
}

static void move(struct timespec *at, int64_t by) {
  int64_t nanoseconds = at->tv_nsec + by % SECOND;
  at->tv_sec += by / SECOND;
  if (nanoseconds < 0) nanoseconds += SECOND, at->tv_sec--;
  if (nanoseconds >= SECOND) nanoseconds -= SECOND, at->tv_sec++;
  at->tv_nsec = nanoseconds;
}

static int is_wall(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

/* The kernel's time for AT; deadlines of monotonic clocks, and those that never come, are as they are. */
static const struct timespec *unmoved(const struct timespec *at, struct timespec *room) {
  if (!at || at->tv_sec < TIME_OF_DAY || at->tv_sec > NEVER) return at;
  *room = *at;
  move(room, -shift_of_node());
  return room;
}

#define NEXT(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

int clock_gettime(clockid_t clock, struct timespec *at) {
  NEXT(clock_gettime);
  int result = real(clock, at);
  if (!result && is_wall(clock)) move(at, shift_of_node());
  return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
  if (base != TIME_UTC) return 0;
  clock_gettime(CLOCK_REALTIME, at);
  return base;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict lock,
                           const struct timespec *restrict end) {
  static __typeof__(pthread_cond_timedwait) *real;
  struct timespec room;
  if (!real) real = (__typeof__(real))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", CONDITIONS);
  return real(condition, lock, unmoved(end, &room));
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *lock, clockid_t clock, const struct timespec *end) {
  NEXT(pthread_cond_clockwait);
  struct timespec room;
  return real(condition, lock, clock, unmoved(end, &room));
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict lock, const struct timespec *restrict end) {
  NEXT(pthread_mutex_timedlock);
  struct timespec room;
  return real(lock, unmoved(end, &room));
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict end) {
  NEXT(sem_timedwait);
  struct timespec room;
  return real(semaphore, unmoved(end, &room));
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict end) {
  NEXT(sem_clockwait);
  struct timespec room;
  return real(semaphore, clock, unmoved(end, &room));
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *end, struct timespec *left) {
  NEXT(clock_nanosleep);
  struct timespec room;
  return real(clock, flags, flags & TIMER_ABSTIME ? unmoved(end, &room) : end, left);
}
