// One ray per pixel: with BACKGROUND defined the floor (shadows of the solids on it) and the backdrop, else solid `which`,
// given by its signed distance, to be blended over what is there. Edges are smoothed by coverage (how close the ray passes, in pixels), so that no supersampling is needed.
// The layout of `u` is written by render.py (pack).
uniform vec4 u[40];
uniform vec2 resolution;
uniform int which;
out vec4 fragment;

const int OBJECTS = 16;  // first row of the objects
const int STRIDE = 6;    // rows an object: centre+kind, three rows of the rotation (w: bound, rounding, -), size+material, colour

float hash(vec2 p) {
    p = fract(p * vec2(0.3183099, 0.3678794) + 0.1);
    p *= 17.0;
    return fract(p.x * p.y * (p.x + p.y));
}

float noise(vec2 p) {
    vec2 i = floor(p), f = fract(p);
    f = f * f * (3.0 - 2.0 * f);
    return mix(mix(hash(i), hash(i + vec2(1, 0)), f.x), mix(hash(i + vec2(0, 1)), hash(i + vec2(1, 1)), f.x), f.y);
}

// A square wave of period 2 averaged over a footprint w: the anti-aliased checker comes from its product.
float square(float x, float w) {
    float a = x - 0.5 * w, b = x + 0.5 * w;
    float ia = abs(mod(a, 2.0) - 1.0), ib = abs(mod(b, 2.0) - 1.0);  // triangle wave = integral of the square wave
    return clamp((ia - ib) / w, -1.0, 1.0);
}

vec3 floor_colour(vec2 q, float w) {
    int kind = int(u[6].x + 0.5);
    float c = cos(u[6].y), s = sin(u[6].y);
    vec2 p = vec2(c * q.x - s * q.y, s * q.x + c * q.y) + u[6].zw;
    float k = 0.5;
    if (kind == 0) {  // planks
        float row = floor(p.y / 0.22);
        float tone = hash(vec2(row, floor(p.x / 1.7 + hash(vec2(row, 3.0)) * 5.0)));
        float gap = smoothstep(0.5 * w + 0.016, 0.004, abs(p.y - (row + 0.5) * 0.22) < 0.0 ? 0.0 : 0.11 - abs(p.y - (row + 0.5) * 0.22));
        float grain = noise(vec2(p.x * 1.8, p.y * 14.0 + row * 7.0));
        k = mix(0.30 + 0.45 * tone + 0.25 * grain, 0.0, 0.55 * gap * clamp(1.4 - w * 20.0, 0.0, 1.0));
    } else if (kind == 1) {  // checker
        vec2 t = p / 0.32;
        float f = w / 0.32 + 0.02;
        k = 0.5 + 0.5 * square(t.x, f) * square(t.y, f);
    } else if (kind == 2) {  // concrete
        k = 0.65 * noise(p * 2.3) + 0.35 * noise(p * 6.1);
    } else if (kind == 3) {  // grass
        k = 0.6 * noise(p * 3.1) + 0.4 * noise(p * vec2(11.0, 8.0));
    } else if (kind == 4) {  // carpet
        k = 0.5 + 0.30 * sin(p.y * 11.0) * clamp(1.3 - w * 12.0, 0.0, 1.0) + 0.3 * (noise(p * 2.0) - 0.5);
    } else {  // marble
        float v = noise(p * 1.6) + 0.5 * noise(p * 3.7);
        k = 1.0 - smoothstep(0.16, 0.0, abs(v - 0.75)) * 0.8 * noise(p * 1.1 + 5.0) - 0.12 * noise(p * 2.1);
    }
    return mix(u[8].rgb, u[7].rgb, clamp(k, 0.0, 1.0));
}

vec3 sky(vec3 d) { return mix(u[10].rgb, u[11].rgb, smoothstep(-0.02, u[10].w, d.z)); }

vec3 environment(vec3 d) {
    vec3 ground = 0.5 * (u[7].rgb + u[8].rgb) * 0.75;
    vec3 seen = mix(ground, sky(d) * 1.05, smoothstep(-0.25, 0.15, d.z));
    return mix(vec3(dot(seen, vec3(0.25, 0.6, 0.15))), seen, 0.3);  // greyed, so that a tinted sky leaves colours their names
}

float solid(int o, vec3 p) {
    int kind = int(u[o].w + 0.5);
    vec3 s = u[o + 4].xyz;
    float r = u[o + 2].w;
    float radial = length(p.xy);
    vec2 q = vec2(radial - s.x, abs(p.z) - s.z) + r;
    if (kind == 1) {
        vec3 b = abs(p) - s + r;
        return length(max(b, 0.0)) + min(max(b.x, max(b.y, b.z)), 0.0) - r;
    }
    if (kind == 0) return length(p) - s.x;
    if (kind == 3) return length(vec3(p.xy, max(abs(p.z) - s.z, 0.0))) - s.x;
    if (kind == 4) {  // the slanted side's outward normal is (2h, R) normalised; apex at +h
        vec2 n = normalize(vec2(2.0 * s.z, s.x));
        q = vec2(dot(vec2(radial, p.z - s.z), n), -p.z - s.z) + r;
    }
    return length(max(q, 0.0)) + min(max(q.x, q.y), 0.0) - r;
}

vec3 to_local(int o, vec3 v) { return vec3(dot(u[o + 1].xyz, v), dot(u[o + 2].xyz, v), dot(u[o + 3].xyz, v)); }
vec3 to_world(int o, vec3 v) { return u[o + 1].xyz * v.x + u[o + 2].xyz * v.y + u[o + 3].xyz * v.z; }

vec3 normal_at(int o, vec3 p) {
    const vec2 e = vec2(0.003, -0.003);
    vec3 n = e.xyy * solid(o, p + e.xyy) + e.yyx * solid(o, p + e.yyx) + e.yxy * solid(o, p + e.yxy) + e.xxx * solid(o, p + e.xxx);
    return normalize(n);
}

// The share of the light that reaches `p` past solid o: 1 lit, 0 in the core of the shadow.
float shadow(int o, vec3 p) {
    vec3 a = to_local(o, p - u[o].xyz), d = to_local(o, u[4].xyz);
    float bound = u[o + 1].w * 1.35 + 0.03;
    float b = dot(a, d), disc = b * b - dot(a, a) + bound * bound;
    if (disc < 0.0) return 1.0;
    float root = sqrt(disc), t = max(-b - root, 0.01), end = -b + root, lit = 1.0;
    for (int i = 0; i < 14; i++) {
        if (t > end) break;
        float h = solid(o, a + t * d);
        lit = min(lit, 0.5 + u[4].w * h / (t + 0.12));
        if (lit < 0.0) break;
        t += clamp(abs(h), 0.012, 0.12);
    }
    lit = clamp(lit, 0.0, 1.0);
    return lit * lit * (3.0 - 2.0 * lit);
}

float lit_by_all(vec3 p, int skip, int count) {
    float s = 1.0;
    for (int i = 0; i < 2; i++) {
        if (i >= count) break;
        if (i != skip) s = min(s, shadow(OBJECTS + STRIDE * i, p));
    }
    return s;
}

vec3 shade(int o, int index, int casters, vec3 local, vec3 view) {
    vec3 p = to_world(o, local) + u[o].xyz;
    vec3 n = to_world(o, normal_at(o, local));
    vec3 l = u[4].xyz, colour = u[o + 5].rgb;
    int material = int(u[o + 4].w + 0.5);
    float key = max(dot(n, l), 0.0) * lit_by_all(p + 0.01 * n, index, casters);
    float open = 0.55 + 0.45 * smoothstep(0.0, 0.12, p.z + 0.08 * n.z);
    vec3 ambient = u[5].w * mix(environment(vec3(0, 0, -1)) * 0.9 + 0.15, vec3(1.0) + 0.05 * u[11].rgb, 0.5 + 0.5 * n.z) * open;
    vec3 diffuse = colour * (ambient + key * u[5].rgb);
    float glint = max(dot(n, normalize(l - view)), 0.0), rim = pow(1.0 - max(dot(n, -view), 0.0), 4.0);
    if (material == 0) return diffuse + 0.03 * key * pow(glint, 8.0);
    vec3 mirrored = environment(reflect(view, n)) * open;
    if (material == 1) return diffuse * 0.96 + mirrored * (0.03 + 0.2 * rim) + 0.45 * u[5].rgb * pow(glint, 45.0) * step(0.001, key);
    return diffuse * 0.45 + mirrored * mix(colour * 0.75 + 0.04, vec3(0.8), 0.4 * rim) + 1.1 * u[5].rgb * pow(glint, 90.0) * step(0.001, key);
}

vec3 background(vec3 eye, vec3 ray, float pixel, int casters) {
    vec3 far = sky(ray);
    float edge = 1.0, t = eye.z / max(-ray.z, 1e-4);
    float wall_y = u[9].y;
    bool wall = u[9].x > 0.5;
    float tw = (wall_y - eye.y) / max(ray.y, 1e-3);
    vec3 hit = eye + ray * t;
    if (wall) {
        vec3 on = eye + ray * tw;
        far = mix(u[10].rgb, u[11].rgb, clamp(on.z / 1.8, 0.0, 1.0)) * (0.72 + 0.28 * smoothstep(0.0, 0.35, on.z));
        edge = clamp(0.5 - (ray.z + eye.z / tw) / pixel, 0.0, 1.0);
    } else {
        edge = clamp(0.5 - ray.z / pixel, 0.0, 1.0) * exp(-max(t - u[9].z, 0.0) * u[9].w);
    }
    if (ray.z > pixel || edge <= 0.0) return far;
    float w = pixel * min(t, 30.0) * mix(1.0, 1.0 / max(-ray.z, 0.05), 0.5);
    float open = 1.0;
    for (int i = 0; i < 2; i++) {
        if (i >= casters) break;
        int o = OBJECTS + STRIDE * i;
        float bound = u[o + 1].w;
        if (distance(hit, u[o].xyz) < 3.0 * bound)
            open *= mix(0.5, 1.0, smoothstep(-0.01, 0.55 * bound, solid(o, to_local(o, hit - u[o].xyz))));
    }
    if (wall) open *= 0.75 + 0.25 * smoothstep(0.0, 0.4, wall_y - hit.y);
    float lit = lit_by_all(hit, -1, casters);
    vec3 ground = floor_colour(hit.xy, w) * (u[5].w * 1.25 * open + u[5].rgb * u[4].z * lit);
    return mix(far, ground, edge);
}

void main() {
    vec2 at = 2.0 * gl_FragCoord.xy / resolution - 1.0;
    vec3 eye = u[0].xyz;
    vec3 ray = normalize(u[3].xyz + u[0].w * (at.x * resolution.x / resolution.y * u[1].xyz - at.y * u[2].xyz));
    float pixel = 2.0 * u[0].w / resolution.y;
    int casters = int(u[12].y + 0.5);
#ifdef BACKGROUND
    vec3 colour = background(eye, ray, pixel, casters);
    float cover = 1.0;
#else
    vec3 colour = vec3(0.0);
    float cover = 0.0;
    int o = OBJECTS + STRIDE * which;
    vec3 a = to_local(o, eye - u[o].xyz), d = to_local(o, ray);
    float footprint = pixel * length(a);
    float bound = u[o + 1].w + footprint;
    float b = dot(a, d), disc = b * b - dot(a, a) + bound * bound;
    if (disc < 0.0) discard;
    float root = sqrt(disc), t = max(-b - root, 0.02), nearest = 1e3, best = t;
    for (int k = 0; k < 40; k++) {
        float h = solid(o, a + t * d) + 0.5 * footprint;
        if (h < nearest) { nearest = h; best = t; }
        if (h < 0.02 * footprint || t > root - b) break;
        t += h;
    }
    cover = nearest < 0.03 * footprint ? 1.0 : 1.0 - clamp(nearest / footprint, 0.0, 1.0);
    if (cover <= 0.0) discard;
    colour = shade(o, which, casters, a + best * d, ray);
#endif
    fragment = vec4(pow(clamp(colour, 0.0, 1.0), vec3(1.0 / 2.2)), cover);
}
