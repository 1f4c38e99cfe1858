/**
 * The customer's page, without query and fragment: those may hold what is nobody's business.
 *
 * In a vendor's iframe `location` is the vendor's own. The embedding page is known from `document.referrer`, until the
 * frame navigates: from then on the referrer is the frame's own earlier page. `ancestorOrigins` (not in older Firefox)
 * tells the two apart, and gives at least the origin.
 */
export const pageUrl = (url = location.href, embedder = (location.ancestorOrigins || [])[0] || ""): string => {
  if (parent != window) url = document.referrer.startsWith(embedder) ? document.referrer : embedder;
  return /[^?#]{0,999}/.exec(url)![0]!;
};
