//go:build cgo && unix

package pkcs11

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// Names and numbers of PKCS#11 2.40 (pkcs11t.h, pkcs11f.h); only what the calls below need.
typedef unsigned long rv;
typedef struct { unsigned long type; void *value; unsigned long length; } attribute;
typedef struct { unsigned long mechanism; void *parameter; unsigned long length; } mechanism;
typedef struct {
	unsigned char *iv;
	unsigned long ivLength, ivBits;
	unsigned char *aad;
	unsigned long aadLength, tagBits;
} gcmParameters;
typedef struct {
	unsigned long hash, mgf, source;
	void *label;
	unsigned long labelLength;
} oaepParameters;
typedef struct { unsigned char version[2]; void *function[68]; } functionList;

enum {
	fInitToken = 9, fInitPIN = 10, fLogin = 18, fCreateObject = 20, fGetAttributeValue = 24, fEncryptInit = 29, fEncrypt = 30,
	fDecryptInit = 33, fDecrypt = 34, fSignInit = 42, fSign = 43, fDeriveKey = 62, fGenerateRandom = 64,
};

typedef rv (*initFn)(unsigned long, mechanism *, unsigned long);
typedef rv (*dataFn)(unsigned long, unsigned char *, unsigned long, unsigned char *, unsigned long *);

static functionList *load(const char *path, const char **fault) {
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL) {
		*fault = dlerror();
		return NULL;
	}
	rv (*get)(functionList **) = (rv (*)(functionList **))dlsym(library, "C_GetFunctionList");
	functionList *list = NULL;
	if (get == NULL || get(&list) != 0 || list == NULL) {
		*fault = "it has no C_GetFunctionList";
		return NULL;
	}
	return list;
}

static rv initToken(functionList *l, unsigned long slot, unsigned char *pin, unsigned long length, unsigned char *label) {
	typedef rv (*fn)(unsigned long, unsigned char *, unsigned long, unsigned char *);
	return ((fn)l->function[fInitToken])(slot, pin, length, label);
}

static rv initPIN(functionList *l, unsigned long session, unsigned char *pin, unsigned long length) {
	typedef rv (*fn)(unsigned long, unsigned char *, unsigned long);
	return ((fn)l->function[fInitPIN])(session, pin, length);
}

static rv login(functionList *l, unsigned long session, unsigned long user, unsigned char *pin, unsigned long length) {
	typedef rv (*fn)(unsigned long, unsigned long, unsigned char *, unsigned long);
	return ((fn)l->function[fLogin])(session, user, pin, length);
}

static rv createObject(functionList *l, unsigned long session, attribute *template, unsigned long count, unsigned long *object) {
	typedef rv (*fn)(unsigned long, attribute *, unsigned long, unsigned long *);
	return ((fn)l->function[fCreateObject])(session, template, count, object);
}

static rv readAttribute(functionList *l, unsigned long session, unsigned long object, unsigned long type, unsigned char *out,
		unsigned long *length) {
	typedef rv (*fn)(unsigned long, unsigned long, attribute *, unsigned long);
	attribute a = {type, out, *length};
	rv r = ((fn)l->function[fGetAttributeValue])(session, object, &a, 1);
	*length = a.length;
	return r;
}

static rv generateRandom(functionList *l, unsigned long session, unsigned char *out, unsigned long length) {
	typedef rv (*fn)(unsigned long, unsigned char *, unsigned long);
	return ((fn)l->function[fGenerateRandom])(session, out, length);
}

// Init and the operation in one: a failure of the second ends the operation too (PKCS#11 5.2). *begun tells which failed.
static rv run(functionList *l, int init, unsigned long session, mechanism *m, unsigned long key,
		unsigned char *in, unsigned long length, unsigned char *out, unsigned long *room, int *begun) {
	rv r = ((initFn)l->function[init])(session, m, key);
	*begun = r == 0;
	return r != 0 ? r : ((dataFn)l->function[init + 1])(session, in, length, out, room);
}

static rv sign(functionList *l, unsigned long session, unsigned long type, unsigned char *parameter, unsigned long size,
		unsigned long key, unsigned char *in, unsigned long length, unsigned char *out, unsigned long *room, int *begun) {
	mechanism m = {type, size ? parameter : NULL, size};
	return run(l, fSignInit, session, &m, key, in, length, out, room, begun);
}

static rv gcm(functionList *l, int decrypt, unsigned long session, unsigned long type, unsigned long key, unsigned char *iv,
		unsigned long ivLength, unsigned char *aad, unsigned long aadLength, unsigned char *in, unsigned long length,
		unsigned char *out, unsigned long *room, int *begun) {
	gcmParameters p = {iv, ivLength, 8 * ivLength, aad, aadLength, 128};
	mechanism m = {type, &p, sizeof p};
	return run(l, decrypt ? fDecryptInit : fEncryptInit, session, &m, key, in, length, out, room, begun);
}

static rv oaep(functionList *l, unsigned long session, unsigned long type, unsigned long hash, unsigned long mgf, unsigned long source,
		unsigned long key, unsigned char *in, unsigned long length, unsigned char *out, unsigned long *room, int *begun) {
	oaepParameters p = {hash, mgf, source, NULL, 0};
	mechanism m = {type, &p, sizeof p};
	return run(l, fDecryptInit, session, &m, key, in, length, out, room, begun);
}

// Forms of a derivation's parameter; the last two are of PKCS#11 3.0.
enum { derivesPlain, derivesByString, derivesByCBC, derivesByNumber, derivesByHKDF, derivesByCounter };

// derive runs C_DeriveKey with a parameter of a form: data is what is derived with, 16 bytes or more; number a position, a handle or a PRF.
static rv derive(functionList *l, unsigned long session, unsigned long type, int form, unsigned char *data, unsigned long length,
		unsigned long number, unsigned long base, attribute *template, unsigned long count, unsigned long *object) {
	struct { unsigned char *data; unsigned long length; } string = {data, length};
	struct { unsigned char iv[16], *data; unsigned long length; } cbc = {{0}, data, length};
	struct {
		unsigned char extract, expand;
		unsigned long prf, saltType;
		unsigned char *salt;
		unsigned long saltLength, saltKey;
		unsigned char *info;
		unsigned long infoLength;
	} hkdf = {1, 1, number, 1, NULL, 0, 0, data, length};
	struct { unsigned char littleEndian; unsigned long width; } counter = {0, 32};
	struct { unsigned long type; void *value; unsigned long length; } parts[2] = {{1, &counter, sizeof counter}, {4, data, length}};
	struct { unsigned long prf, count; void *parts; unsigned long additional; void *keys; } kdf = {number, 2, parts, 0, NULL};
	mechanism m = {type, NULL, 0};
	switch (form) {
	case derivesByString: m.parameter = &string, m.length = sizeof string; break;
	case derivesByCBC: m.parameter = &cbc, m.length = sizeof cbc; break;
	case derivesByNumber: m.parameter = &number, m.length = sizeof number; break;
	case derivesByHKDF: m.parameter = &hkdf, m.length = sizeof hkdf; break;
	case derivesByCounter: m.parameter = &kdf, m.length = sizeof kdf; break;
	}
	typedef rv (*fn)(unsigned long, mechanism *, unsigned long, attribute *, unsigned long, unsigned long *);
	return ((fn)l->function[fDeriveKey])(session, &m, base, template, count, object);
}

// wipe is not optimised away.
static void wipe(void *p, size_t n) {
	volatile unsigned char *b = p;
	while (n-- > 0) *b++ = 0;
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	p11 "github.com/miekg/pkcs11"
)

// The calls that carry secrets or that run per operation are made here and not by the binding. The binding copies arguments and
// results through memory that it frees without wiping; and when a device refuses a ciphertext it does not free at all, so that
// whoever may send bad ciphertexts could fill the node's memory. Here results go straight to Go memory, and copies are wiped.

type functions struct{ list *C.functionList }

func loadFunctions(path string) (functions, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var fault *C.char
	list := C.load(name, &fault)
	if list == nil {
		return functions{}, fmt.Errorf("loading PKCS#11 module %s: %s", path, C.GoString(fault))
	}
	return functions{list: list}, nil
}

// empty stands for no bytes: modules have been seen to crash on null pointers of length 0.
var empty [1]byte

func pointer(b []byte) *C.uchar {
	if len(b) == 0 {
		return (*C.uchar)(&empty[0])
	}
	return (*C.uchar)(unsafe.Pointer(&b[0]))
}

func (f functions) initToken(slot uint, pin []byte, label string) error {
	padded := fmt.Appendf(nil, "%-32s", label)
	return named("C_InitToken", C.initToken(f.list, C.ulong(slot), pointer(pin), C.ulong(len(pin)), pointer(padded)))
}

func (f functions) initPIN(s p11.SessionHandle, pin []byte) error {
	return named("C_InitPIN", C.initPIN(f.list, C.ulong(s), pointer(pin), C.ulong(len(pin))))
}

func (f functions) login(s p11.SessionHandle, user uint, pin []byte) error {
	return named("C_Login", C.login(f.list, C.ulong(s), C.ulong(user), pointer(pin), C.ulong(len(pin))))
}

func (f functions) random(s p11.SessionHandle, out []byte) error {
	if len(out) == 0 {
		return nil
	}
	return named("C_GenerateRandom", C.generateRandom(f.list, C.ulong(s), pointer(out), C.ulong(len(out))))
}

// read fills out with an attribute and returns its length.
func (f functions) read(s p11.SessionHandle, object p11.ObjectHandle, attribute uint, out []byte) (int, error) {
	n := C.ulong(len(out))
	r := C.readAttribute(f.list, C.ulong(s), C.ulong(object), C.ulong(attribute), pointer(out), &n)
	if r != 0 {
		return 0, named("C_GetAttributeValue", r)
	}
	return int(min(n, C.ulong(len(out)))), nil
}

// sign runs C_SignInit and C_Sign; the result has at most room bytes.
func (f functions) sign(s p11.SessionHandle, mech uint, parameter []byte, key p11.ObjectHandle, in []byte, room int) ([]byte, error) {
	out, n, begun := make([]byte, room), C.ulong(room), C.int(0)
	r := C.sign(f.list, C.ulong(s), C.ulong(mech), pointer(parameter), C.ulong(len(parameter)), C.ulong(key),
		pointer(in), C.ulong(len(in)), pointer(out), &n, &begun)
	if r != 0 {
		return nil, stepped(begun, "C_SignInit", "C_Sign", r)
	}
	return out[:min(n, C.ulong(room))], nil
}

// gcm appends the result of AES-GCM with a tag of 128 bits to out, which must have room for it.
func (f functions) gcm(decrypt bool, s p11.SessionHandle, key p11.ObjectHandle, nonce, aad, in, out []byte) ([]byte, error) {
	room := out[len(out):cap(out)]
	n, begun, direction := C.ulong(len(room)), C.int(0), C.int(0)
	init, operate := "C_EncryptInit", "C_Encrypt"
	if decrypt {
		direction, init, operate = 1, "C_DecryptInit", "C_Decrypt"
	}
	r := C.gcm(f.list, direction, C.ulong(s), p11.CKM_AES_GCM, C.ulong(key), pointer(nonce), C.ulong(len(nonce)),
		pointer(aad), C.ulong(len(aad)), pointer(in), C.ulong(len(in)), pointer(room), &n, &begun)
	if r != 0 {
		clear(room)
		return nil, stepped(begun, init, operate, r)
	}
	return out[:len(out)+int(min(n, C.ulong(len(room))))], nil
}

// oaep decrypts by RSAES-OAEP with a hash, MGF1 by mgf, and no label. The room is that of the modulus, which modules ask for.
func (f functions) oaep(s p11.SessionHandle, hash, mgf uint, key p11.ObjectHandle, in []byte) ([]byte, error) {
	out, n, begun := make([]byte, len(in)), C.ulong(len(in)), C.int(0)
	r := C.oaep(f.list, C.ulong(s), p11.CKM_RSA_PKCS_OAEP, C.ulong(hash), C.ulong(mgf), p11.CKZ_DATA_SPECIFIED, C.ulong(key),
		pointer(in), C.ulong(len(in)), pointer(out), &n, &begun)
	if r != 0 {
		clear(out)
		return nil, stepped(begun, "C_DecryptInit", "C_Decrypt", r)
	}
	return out[:min(n, C.ulong(len(out)))], nil
}

// create makes an object. The copies of its attributes are wiped, because one may be a key.
func (f functions) create(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	array, release := cTemplate(template)
	defer release()
	var object C.ulong
	r := C.createObject(f.list, C.ulong(s), array, C.ulong(len(template)), &object)
	return p11.ObjectHandle(object), named("C_CreateObject", r)
}

// Forms of a derivation's parameter.
const (
	derivesPlain     = C.derivesPlain
	derivesByString  = C.derivesByString  // CK_KEY_DERIVATION_STRING_DATA
	derivesByCBC     = C.derivesByCBC     // CK_AES_CBC_ENCRYPT_DATA_PARAMS
	derivesByNumber  = C.derivesByNumber  // CK_OBJECT_HANDLE, CK_EXTRACT_PARAMS
	derivesByHKDF    = C.derivesByHKDF    // CK_HKDF_PARAMS
	derivesByCounter = C.derivesByCounter // CK_SP800_108_KDF_PARAMS
)

// deriveBy runs C_DeriveKey.
func (f functions) deriveBy(
	s p11.SessionHandle, mech uint, form int, data []byte, number uint, base p11.ObjectHandle, template []*p11.Attribute,
) (p11.ObjectHandle, error) {
	array, release := cTemplate(template)
	defer release()
	var object C.ulong
	r := C.derive(f.list, C.ulong(s), C.ulong(mech), C.int(form), pointer(data), C.ulong(len(data)), C.ulong(number), C.ulong(base),
		array, C.ulong(len(template)), &object)
	return p11.ObjectHandle(object), named("C_DeriveKey", r)
}

// cTemplate copies a template to C memory, which release wipes and frees.
func cTemplate(template []*p11.Attribute) (array *C.attribute, release func()) {
	size := C.size_t(len(template)) * C.size_t(unsafe.Sizeof(C.attribute{}))
	memory := C.calloc(C.size_t(len(template)), C.size_t(unsafe.Sizeof(C.attribute{})))
	all := unsafe.Slice((*C.attribute)(memory), len(template))
	for i, a := range template {
		all[i]._type, all[i].length = C.ulong(a.Type), C.ulong(len(a.Value))
		all[i].value = C.CBytes(a.Value)
	}
	return (*C.attribute)(memory), func() {
		for _, a := range all {
			C.wipe(a.value, C.size_t(a.length))
			C.free(a.value)
		}
		C.wipe(memory, size)
		C.free(memory)
	}
}

// nested makes an attribute whose value is a template (CKA_UNWRAP_TEMPLATE): an array of CK_ATTRIBUTE in C memory, which the
// binding cannot make. release is called after the call that uses it.
func nested(attribute uint, template []*p11.Attribute) (a *p11.Attribute, release func()) {
	array, release := cTemplate(template)
	size := len(template) * int(unsafe.Sizeof(C.attribute{}))
	return &p11.Attribute{Type: attribute, Value: C.GoBytes(unsafe.Pointer(array), C.int(size))}, release
}

// cString is for pReserved of C_Initialize. It is not freed: a module may keep it.
func cString(s string) unsafe.Pointer { return unsafe.Pointer(C.CString(s)) }

func named(call string, r C.rv) error {
	if r == 0 {
		return nil
	}
	return &callError{call: call, code: p11.Error(r)}
}

func stepped(begun C.int, init, operate string, r C.rv) error {
	if begun == 0 {
		return named(init, r)
	}
	return named(operate, r)
}
