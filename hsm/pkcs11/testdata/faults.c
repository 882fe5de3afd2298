// A PKCS#11 module that passes every call to another one (REAL), does what it is told by a shared file (CONTROL), and watches two
// rules that no module survives the breaking of: one thread per session, and no C_Finalize under a call.
//
// Built by the tests: cc -shared -fPIC -DREAL="..." -DCONTROL="..." -o faults.so faults.c
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*fn)(word, word, word, word, word, word, word, word);
typedef struct { unsigned char version[2]; fn function[68]; } list;

enum { CALLS = 68, Initialize = 0, Finalize = 1, GetTokenInfo = 6, OpenSession = 12, CloseSession = 13, CloseAllSessions = 14,
	CreateObject = 20 };

// The layout is known to the tests as well: all fields are 64 bits.
struct control {
	uint64_t limit;      // sessions that may be open; 0: as many as REAL allows
	uint64_t announced;  // CK_TOKEN_INFO.ulMaxSessionCount; 0: what REAL says
	uint64_t shared;     // times that a session was used by two calls at once
	uint64_t underCalls; // times that C_Finalize ran under a call
	uint64_t heap;       // bytes that C code has allocated and not freed (glibc), as of the last C_GetTokenInfo
	uint64_t derives;    // objects are made with CKA_DERIVE, and without CKA_ALLOWED_MECHANISMS
	// slow: microseconds that a call takes longer; hold: it does not return as long as this is not 0
	struct { uint64_t answer, skip, times, calls, slow, hold; } rule[CALLS];
};

static struct control *control;
static list *real;
static list own;

enum { SESSIONS = 4096 };
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static word inUse[SESSIONS];
static uint64_t open_, underWay;

static void enter(int n, word session) {
	pthread_mutex_lock(&mutex);
	if (n == Finalize && underWay > 0) control->underCalls++;
	underWay++;
	if (n > CloseAllSessions || n == CloseSession) {
		int hole = -1, found = 0;
		for (int i = 0; i < SESSIONS; i++) {
			if (inUse[i] == session) found = 1;
			if (inUse[i] == 0 && hole < 0) hole = i;
			if (inUse[i] == 0 && i > 256) break;
		}
		if (found) control->shared++;
		if (hole >= 0) inUse[hole] = session;
	}
	pthread_mutex_unlock(&mutex);
}

static void leave(int n, word session) {
	pthread_mutex_lock(&mutex);
	underWay--;
	if (n > CloseAllSessions || n == CloseSession)
		for (int i = 0; i < SESSIONS; i++)
			if (inUse[i] == session) { inUse[i] = 0; break; }
	pthread_mutex_unlock(&mutex);
}

// planned is what the rule of a call answers in its place; 0: nothing.
static word planned(int n) {
	word answer = 0;
	pthread_mutex_lock(&mutex);
	control->rule[n].calls++;
	if (control->rule[n].answer && control->rule[n].times > 0) {
		if (control->rule[n].skip > 0) control->rule[n].skip--;
		else { control->rule[n].times--; answer = control->rule[n].answer; }
	}
	if (answer == 0 && n == OpenSession && control->limit && open_ >= control->limit) answer = 0xB1;
	pthread_mutex_unlock(&mutex);
	return answer;
}

static void count(int n) {
	pthread_mutex_lock(&mutex);
	if (n == OpenSession) open_++;
	if (n == CloseSession && open_ > 0) open_--;
	if (n == CloseAllSessions || n == Finalize) open_ = 0;
	pthread_mutex_unlock(&mutex);
}

// permissive makes an object that more can be done with than was asked for.
static word permissive(word session, word template, word count, word object) {
	struct { word type; void *value; word length; } made[64];
	unsigned char yes = 1;
	word n = 0;
	if (count > 64) return 0x5;
	for (word i = 0; i < count; i++) {
		made[n] = ((typeof(made[0]) *)template)[i];
		if (made[n].type == 0x40000600) continue; // CKA_ALLOWED_MECHANISMS
		if (made[n].type == 0x10C) made[n].value = &yes; // CKA_DERIVE
		n++;
	}
	return real->function[CreateObject](session, (word)made, n, object, 0, 0, 0, 0);
}

static word call(int n, word a, word b, word c, word d, word e, word f, word g, word h) {
	word r = planned(n);
	if (r) return r;
	enter(n, a);
	if (control->rule[n].slow) usleep(control->rule[n].slow);
	while (__atomic_load_n(&control->rule[n].hold, __ATOMIC_ACQUIRE)) usleep(500);
	r = n == CreateObject && control->derives ? permissive(a, b, c, d) : real->function[n](a, b, c, d, e, f, g, h);
	leave(n, a);
	if (r == 0) count(n);
	if (n == GetTokenInfo) control->heap = mallinfo2().uordblks + mallinfo2().hblkhd;
	if (r == 0 && n == GetTokenInfo && control->announced) {
		// CK_TOKEN_INFO: 96 bytes of text and 16 of serial number after it (112), flags, then the counts.
		word *numbers = (word *)((char *)b + 32 + 32 + 16 + 16);
		numbers[1] = control->announced;
	}
	return r;
}

#define ONE(n) \
	static word w##n(word a, word b, word c, word d, word e, word f, word g, word h) { return call(n, a, b, c, d, e, f, g, h); }
#define TEN(t) ONE(t##0) ONE(t##1) ONE(t##2) ONE(t##3) ONE(t##4) ONE(t##5) ONE(t##6) ONE(t##7) ONE(t##8) ONE(t##9)
ONE(0) ONE(1) ONE(2) ONE(3) ONE(4) ONE(5) ONE(6) ONE(7) ONE(8) ONE(9)
TEN(1) TEN(2) TEN(3) TEN(4) TEN(5)
ONE(60) ONE(61) ONE(62) ONE(63) ONE(64) ONE(65) ONE(66) ONE(67)
#define TENS(t) w##t##0, w##t##1, w##t##2, w##t##3, w##t##4, w##t##5, w##t##6, w##t##7, w##t##8, w##t##9

static const fn wrappers[CALLS] = {
	w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, TENS(1), TENS(2), TENS(3), TENS(4), TENS(5), w60, w61, w62, w63, w64, w65, w66, w67,
};

word C_GetFunctionList(list **out) {
	pthread_mutex_lock(&mutex);
	if (real == NULL) {
		void *library = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
		word (*get)(list **) = library ? (word (*)(list **))dlsym(library, "C_GetFunctionList") : NULL;
		int file = open(CONTROL, O_RDWR);
		void *memory = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		if (get == NULL || memory == MAP_FAILED || get(&real) != 0) {
			real = NULL;
			pthread_mutex_unlock(&mutex);
			return 0x5;
		}
		control = memory;
		own.version[0] = real->version[0];
		own.version[1] = real->version[1];
		for (int i = 0; i < CALLS; i++) own.function[i] = wrappers[i];
	}
	pthread_mutex_unlock(&mutex);
	*out = &own;
	return 0;
}
